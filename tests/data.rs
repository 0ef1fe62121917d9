//! Data sets, loaders, and random numbers that do not depend on threads.

use sinter::data::{
    DataLoader, Dataset, LoaderOptions, Subset, TensorDataset, random_split, shuffled,
};
use sinter::nn::functional as F;
use sinter::{DType, Tensor, arange, bernoulli, manual_seed, ones, rand, randint, randn, randperm};
use sinter_kernels::par;
use sinter_kernels::rng::Philox;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Salmon et al. (2011), the known answers of Random123: counters and keys of zeros,
/// and of ones.
#[test]
fn philox_known_answers() {
    assert_eq!(Philox::new(0).words(0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
}

/// Everything random that a program can ask for, one after the other.
fn all_random() -> Vec<Vec<f64>> {
    manual_seed(42);
    let big = rand([70_001]);
    let mut out = vec![
        big.to_vec::<f64>(),
        randn([50_003]).to_vec(),
        randint(-5, 7, [30_011]).to_vec(),
        randperm(10_007).to_vec(),
        bernoulli(&big).to_vec(),
        F::dropout(&big, 0.3, true).to_vec(),
    ];
    let x = ones([300, 301]);
    x.normal_(1.0, 2.0);
    out.push(x.to_vec());
    out
}

#[test]
fn numbers_do_not_depend_on_the_number_of_threads() {
    let before = par::threads();
    let runs: Vec<_> = [1, 2, 4]
        .into_iter()
        .map(|n| {
            par::set_threads(n);
            all_random()
        })
        .collect();
    par::set_threads(before);
    assert!(runs.windows(2).all(|w| w[0] == w[1]));
    let [u, z, i, p, ..] = &runs[0][..] else { unreachable!("there are more") };
    assert!(u.iter().all(|v| (0.0..1.0).contains(v)));
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    assert!((mean(u) - 0.5).abs() < 0.005 && mean(z).abs() < 0.02);
    assert!(i.iter().all(|v| (-5.0..7.0).contains(v) && v.fract() == 0.0));
    let mut sorted = p.clone();
    sorted.sort_by(f64::total_cmp);
    assert!(sorted.iter().enumerate().all(|(i, v)| *v == i as f64));
}

#[test]
fn the_stream_can_be_taken_up_again() {
    manual_seed(1);
    rand([10]);
    let at = sinter::random::state();
    let a = rand([10]).to_vec::<f32>();
    assert_ne!(rand([10]).to_vec::<f32>(), a);
    sinter::random::set_state(at);
    assert_eq!(rand([10]).to_vec::<f32>(), a);
}

fn pairs(n: usize) -> TensorDataset {
    TensorDataset::new(arange(0, n as i64, 1), arange(0, n as i64, 1).to_dtype(DType::F32) * 2.0)
}

#[test]
fn every_sample_once_in_an_order_of_seed_and_epoch() {
    let run = |seed, epoch, workers| -> Vec<i64> {
        let options =
            LoaderOptions { batch_size: 7, shuffle: Some(seed), workers, ..Default::default() };
        let l = DataLoader::new(pairs(100), options);
        assert_eq!(l.len(), 15);
        l.epoch(epoch)
            .flat_map(|(x, y)| {
                assert_eq!((x.to_dtype(DType::F32) * 2.0).to_vec::<f32>(), y.to_vec::<f32>());
                x.to_vec::<i64>()
            })
            .collect()
    };
    let base = run(1, 0, 0);
    assert_eq!(base, run(1, 0, 3));
    assert_ne!(base, run(1, 1, 0));
    assert_ne!(base, run(2, 0, 0));
    let mut sorted = base;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).collect::<Vec<i64>>());
}

/// Counts what is asked of it; sample `broken` panics.
struct Slow {
    asked: Arc<AtomicUsize>,
    broken: Option<usize>,
    pause: Duration,
}

impl Dataset for Slow {
    type Sample = i64;
    fn len(&self) -> usize {
        1000
    }
    fn get(&self, i: usize) -> i64 {
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        assert!(Some(i) != self.broken, "sample {i} cannot be read");
        i as i64
    }
}

fn slow(broken: Option<usize>, pause: u64) -> (Slow, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    (Slow { asked: asked.clone(), broken, pause: Duration::from_millis(pause) }, asked)
}

#[test]
fn workers_run_ahead_but_not_away() {
    let (data, asked) = slow(None, 0);
    let options = LoaderOptions { batch_size: 2, workers: 2, prefetch: 3, ..Default::default() };
    let l = DataLoader::new(data, options);
    let mut batches = l.epoch(0);
    batches.next();
    std::thread::sleep(Duration::from_millis(200));
    let ahead = asked.load(Ordering::SeqCst);
    // Two workers, three batches each, of two.
    assert!(ahead > 2 && ahead <= 12, "{ahead}");
    assert_eq!(batches.count(), 499);
}

#[test]
fn leaving_early_does_not_hang() {
    let (data, _) = slow(None, 1);
    let options = LoaderOptions { batch_size: 10, workers: 4, prefetch: 8, ..Default::default() };
    let l = DataLoader::new(data, options);
    let start = Instant::now();
    for _ in 0..3 {
        let mut b = l.epoch(0);
        b.next();
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_panic_in_the_data_set_surfaces() {
    for workers in [0, 1, 4] {
        let (data, _) = slow(Some(33), 0);
        let options = LoaderOptions { batch_size: 4, workers, ..Default::default() };
        let l = DataLoader::new(data, options);
        let mut b = l.epoch(0);
        assert_eq!(b.by_ref().take(8).count(), 8);
        let e = catch_unwind(AssertUnwindSafe(|| b.next())).unwrap_err();
        let text = e.downcast_ref::<String>().expect("a message");
        assert!(text.contains("sample 33 cannot be read"), "{text}");
        // Dropping what is left neither hangs nor panics.
        drop(b);
    }
}

#[test]
fn loading_does_not_record() {
    let x = ones([4, 2]).requires_grad_(true);
    let l = DataLoader::new(TensorDataset::new(x, ones([4])), LoaderOptions::default());
    assert!(l.epoch(0).all(|(x, _)| !x.requires_grad()));
}

#[test]
fn orders_and_subsets() {
    assert_eq!(shuffled(50, 3), shuffled(50, 3));
    assert_ne!(shuffled(50, 3), shuffled(50, 4));
    assert!(shuffled(0, 1).is_empty());
    manual_seed(8);
    let parts = random_split(10, &[6, 3, 1]);
    let mut all = parts.concat();
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [6, 3, 1]);
    all.sort_unstable();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
    let s = Subset::new(Arc::new(pairs(10)), vec![7, 2]);
    let (x, _): (Tensor, Tensor) = s.get(1);
    assert_eq!((s.len(), x.item::<i64>()), (2, 2));
    assert!(catch_unwind(|| Subset::new(pairs(3), vec![3])).is_err());
}
