use super::*;

#[test]
fn classes_cover_and_round_up_little() {
    let mut last = 0;
    for class in 1..120 {
        let b = class_bytes(class);
        assert!(b > last);
        assert_eq!(class_of(b), class, "{b}");
        assert_eq!(class_of(last + 1), class, "{}", last + 1);
        last = b;
    }
    for bytes in [1, 63, 64, 65, 1024, 1025, 1 << 20, (1 << 20) + 1, 12_345_678] {
        let c = class_bytes(class_of(bytes));
        assert!(c >= bytes && c <= (bytes + bytes / 4).max(64) + 64);
    }
}

#[test]
fn freed_memory_is_found_again() {
    for bytes in [100, 5000, 3 << 20] {
        let a = Block::try_new(bytes).unwrap();
        let p = a.as_ptr();
        assert_eq!(p as usize % ALIGN, 0);
        drop(a);
        let b = Block::try_new(bytes).unwrap();
        // Another test's thread may have taken a large one in between.
        assert!(b.as_ptr() == p || bytes > THREAD_CACHED);
    }
}

#[test]
fn sharing_counts_handles() {
    let a = Block::try_new(8).unwrap();
    let b = a.clone();
    assert!(a.same(&b));
    assert_eq!(a.handles(), 2);
    drop(b);
    assert_eq!(a.handles(), 1);
    a.bump_version(7, true);
    a.bump_version(8, false);
    assert_eq!((a.version(), a.last_writer(), a.recorded_version()), (2, 8, 1));
}

#[test]
fn external_memory_lives_as_long_as_the_block() {
    struct Owner(Vec<u8>, std::sync::Arc<AtomicBool>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    let gone = std::sync::Arc::new(AtomicBool::new(false));
    let b = Block::from_owner(Owner(vec![1, 2, 3], gone.clone()));
    assert_eq!(b.len(), 3);
    assert!(b.is_read_only());
    let c = b.clone();
    drop(b);
    assert!(!gone.load(Ordering::Relaxed));
    drop(c);
    assert!(gone.load(Ordering::Relaxed));
}

#[test]
fn absurd_sizes_are_an_error() {
    for bytes in [usize::MAX, usize::MAX - 100, 1 << 62, 1 << 46] {
        assert_eq!(Block::try_new(bytes).unwrap_err().requested, bytes);
    }
}

#[test]
fn blocks_cross_threads() {
    let blocks: Vec<_> = (0..100).map(|i| Block::try_new(i * 97).unwrap()).collect();
    std::thread::spawn(move || drop(blocks)).join().unwrap();
}

#[test]
fn memory_on_a_device_is_out_of_reach() {
    let kept = std::sync::Arc::new(7u32);
    let b = Block::on_device(kept.clone(), 16);
    assert!(b.is_on_device() && b.len() == 16 && !b.is_read_only());
    assert_eq!(b.owner::<std::sync::Arc<u32>>().map(|n| **n), Some(7));
    assert!(b.owner::<u32>().is_none());
    let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(refused(&|| _ = b.as_ptr()));
    assert!(refused(&|| drop(b.src::<f32>(0, &[4], &[1]).to_vec())));
    assert!(refused(&|| drop(b.src::<f32>(0, &[0], &[1]).to_vec())));
    assert!(refused(&|| _ = b.dst::<f32>(0, &[4], &[1]).ptr()));
    assert!(refused(&|| b.write(&[1.0f32])));
    drop(b);
    assert_eq!(std::sync::Arc::strong_count(&kept), 1);
}
