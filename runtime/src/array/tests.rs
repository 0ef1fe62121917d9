use super::*;
use proptest::prelude::*;

fn arange(shape: &[usize]) -> Array {
    let v: Vec<i64> = (0..shape.iter().product::<usize>() as i64).collect();
    Array::from_slice(&v, shape).unwrap()
}

#[test]
fn views_share_memory() {
    let a = arange(&[2, 3, 4]);
    let t = a.permute(&[2, 0, 1]);
    assert_eq!(t.shape(), [4, 2, 3]);
    assert_eq!(t.to_vec::<i64>()[..6], [0, 4, 8, 12, 16, 20]);
    let s = a.slice(2, 1, 2, 2);
    assert_eq!(s.to_vec::<i64>(), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]);
    assert_eq!(a.flip(&[0]).to_vec::<i64>()[0], 12);
    assert_eq!(a.slice(0, 1, 1, 1).broadcast_to(&[5, 3, 4]).unwrap().strides()[0], 0);
    assert!(a.broadcast_to(&[2, 4, 4]).is_none());
    assert!(a.block().same(t.block()));
}

#[test]
fn view_of_permuted_dimensions() {
    let a = arange(&[4, 6]).permute(&[1, 0]);
    assert!(a.view(&[24]).is_none());
    assert_eq!(a.view(&[2, 3, 4]).unwrap().strides(), [3, 1, 6]);
    assert_eq!(a.view(&[6, 1, 2, 2]).unwrap().strides()[2..], [12, 6]);
    let s = arange(&[4, 6]).slice(1, 0, 3, 2);
    assert_eq!(s.view(&[12]).unwrap().strides(), [2]);
    assert!(s.view(&[5]).is_none());
}

#[test]
fn strides_are_checked() {
    let a = arange(&[10]);
    assert!(a.as_strided(&[3, 3], &[2, 1], 3).is_ok());
    assert!(a.as_strided(&[3, 3], &[3, 2], 0).is_err());
    assert!(a.as_strided(&[2], &[-1], 0).is_err());
    assert!(a.as_strided(&[1 << 40, 1 << 40], &[0, 0], 0).is_err());
    assert!(a.as_strided(&[3], &[isize::MAX], 0).is_err());
}

#[test]
fn shapes_beyond_memory_are_errors() {
    assert!(Array::empty(&[1 << 40, 1 << 40], DType::F32).is_err());
    assert!(Array::empty(&[0, usize::MAX, 2], DType::F32).is_err());
    assert!(Array::empty(&[1; 65], DType::F32).is_err());
}

#[test]
fn overlap() {
    let a = arange(&[4, 4]);
    assert!(!a.overlaps_itself());
    assert!(!a.permute(&[1, 0]).overlaps_itself());
    assert!(a.slice(0, 0, 1, 1).broadcast_to(&[3, 4]).unwrap().overlaps_itself());
    assert!(a.as_strided(&[3, 3], &[1, 1], 0).unwrap().overlaps_itself());
    assert!(!a.slice(0, 0, 2, 1).may_overlap(&a.slice(0, 2, 2, 1)));
    assert!(a.slice(0, 0, 3, 1).may_overlap(&a.slice(0, 2, 2, 1)));
}

#[test]
fn bytes_round_trip() {
    for d in DType::ALL {
        let bytes: Vec<u8> = (0..4 * d.size() as u8).map(|b| b % 2).collect();
        let a = Array::from_bytes(&bytes, &[2, 2], d).unwrap();
        assert_eq!(a.to_bytes(), bytes, "{d}");
        assert!(Array::from_bytes(&bytes[1..], &[2, 2], d).is_err());
    }
}

proptest! {
    #[test]
    fn a_view_has_the_elements_in_order(
        shape in proptest::collection::vec(1usize..4, 1..4),
        rotate in 0usize..3,
        split in 0usize..3,
    ) {
        let mut perm: Vec<usize> = (0..shape.len()).collect();
        perm.rotate_left(rotate % shape.len());
        let a = arange(&shape).permute(&perm);
        // Merge everything, or split one dimension off.
        let mut new: Vec<usize> = a.shape().to_vec();
        if split < new.len() && new.len() > 1 {
            let n = new.remove(split);
            let at = split.min(new.len() - 1);
            new[at] *= n;
        }
        if let Some(v) = a.view(&new) {
            prop_assert_eq!(v.to_vec::<i64>(), a.to_vec::<i64>());
        }
    }
}
