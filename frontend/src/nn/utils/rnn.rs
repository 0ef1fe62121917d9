//! Sequences of different lengths together: padded to the longest, or packed.

use crate::tensor::{Tensor, cat, from_slice, full};
use sinter_runtime::Scalar;

/// Sequences of different lengths, longest first, with the steps that are there of all
/// of them one after the other: what the layers take in place of padded ones, so that
/// nothing is computed from padding.
#[derive(Clone, Debug)]
pub struct PackedSequence {
    data: Tensor,
    batch_sizes: Vec<usize>,
    /// The given place of each sequence, longest first; `None` where they were in order.
    sorted: Option<Vec<usize>>,
}

impl PackedSequence {
    /// [total, ..]: of each step, the rows of all sequences that have it.
    pub fn data(&self) -> &Tensor {
        &self.data
    }

    /// How many sequences have each step.
    pub fn batch_sizes(&self) -> &[usize] {
        &self.batch_sizes
    }

    /// The given place of each sequence, longest first; `None` where they were given so.
    pub fn sorted_indices(&self) -> Option<&[usize]> {
        self.sorted.as_deref()
    }

    /// The place of each given sequence among them, longest first.
    pub fn unsorted_indices(&self) -> Option<Vec<usize>> {
        let sorted = self.sorted.as_ref()?;
        let mut back = vec![0; sorted.len()];
        sorted.iter().enumerate().for_each(|(to, &from)| back[from] = to);
        Some(back)
    }

    /// Lengths, longest first.
    pub(crate) fn sorted_lengths(&self) -> Vec<usize> {
        let has = |n: usize| self.batch_sizes.iter().take_while(|&&b| b > n).count();
        (0..self.batch_sizes[0]).map(has).collect()
    }

    /// The same sequences with other elements.
    pub(crate) fn with_data(&self, data: Tensor) -> PackedSequence {
        PackedSequence { data, ..self.clone() }
    }

    /// `x`, given along `dim`, longest first.
    pub(crate) fn sort(&self, x: &Tensor, dim: i64) -> Tensor {
        chosen(x, dim, self.sorted_indices())
    }

    /// The converse.
    pub(crate) fn unsort(&self, x: &Tensor, dim: i64) -> Tensor {
        chosen(x, dim, self.unsorted_indices().as_deref())
    }
}

fn index(v: impl Iterator<Item = usize>) -> Tensor {
    let v: Vec<i64> = v.map(|i| i as i64).collect();
    from_slice(&v, [v.len()])
}

#[track_caller]
fn chosen(x: &Tensor, dim: i64, at: Option<&[usize]>) -> Tensor {
    match at {
        Some(at) => x.index_select(dim, &index(at.iter().copied())),
        None => x.clone(),
    }
}

/// Packs padded sequences, [T, N, ..], or [N, T, ..] with `batch_first`. With
/// `enforce_sorted` they have to come longest first, as ONNX wants them; otherwise they
/// come in any order, which [`pad_packed_sequence`] restores.
///
/// ```
/// use sinter::nn::utils::rnn::{pack_padded_sequence, pad_packed_sequence};
/// use sinter::tensor;
///
/// let x = tensor([[1.0f32, 2.0, 0.0], [3.0, 4.0, 5.0]]);
/// let packed = pack_padded_sequence(&x, &[2, 3], true, false);
/// assert_eq!(packed.data().to_vec::<f32>(), [3.0, 1.0, 4.0, 2.0, 5.0]);
/// assert_eq!(packed.batch_sizes(), [2, 2, 1]);
/// let (y, lengths) = pad_packed_sequence(&packed, true, 0.0, None);
/// assert_eq!((y.to_vec::<f32>(), lengths), (x.to_vec::<f32>(), vec![2, 3]));
/// ```
///
/// # Panics
/// If there are no sequences, a length is zero or more than T, or they are not in order
/// although they should be.
#[track_caller]
pub fn pack_padded_sequence(
    x: &Tensor,
    lengths: &[usize],
    batch_first: bool,
    enforce_sorted: bool,
) -> PackedSequence {
    if x.rank() < 2 {
        panic!("pack_padded_sequence: needs two dimensions or more, got {:?}", x.shape());
    }
    let x = if batch_first { x.transpose(0, 1) } else { x.clone() };
    let (steps, n) = (x.shape()[0], x.shape()[1]);
    if lengths.len() != n || n == 0 {
        panic!("pack_padded_sequence: {} lengths for {n} sequences; needs one each", lengths.len());
    }
    if let Some(l) = lengths.iter().find(|&&l| l == 0 || l > steps) {
        panic!("pack_padded_sequence: a length of {l}; sequences have 1 to {steps} steps");
    }
    let mut sorted: Vec<usize> = (0..n).collect();
    sorted.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let in_order = sorted.iter().enumerate().all(|(i, &s)| i == s);
    if enforce_sorted && !in_order {
        panic!(
            "pack_padded_sequence: lengths {lengths:?} do not fall; give the longest sequence \
             first, or set `enforce_sorted` to false"
        );
    }
    let longest = lengths[sorted[0]];
    let batch_sizes: Vec<usize> =
        (0..longest).map(|t| lengths.iter().filter(|&&l| l > t).count()).collect();
    let rows = batch_sizes.iter().enumerate().flat_map(|(t, &b)| {
        let sorted = &sorted;
        (0..b).map(move |i| t * n + sorted[i])
    });
    let data = x.flatten(0, 1).index_select(0, &index(rows));
    PackedSequence { data, batch_sizes, sorted: (!in_order).then_some(sorted) }
}

/// The padded sequences that were packed, in the order given, and their lengths:
/// [T, N, ..], or [N, T, ..] with `batch_first`; `padding_value` after the ends, up to
/// the longest or `total_length`.
///
/// # Panics
/// If `total_length` is less than the longest.
#[track_caller]
pub fn pad_packed_sequence(
    x: &PackedSequence,
    batch_first: bool,
    padding_value: impl Into<Scalar>,
    total_length: Option<usize>,
) -> (Tensor, Vec<usize>) {
    let (longest, n) = (x.batch_sizes.len(), x.batch_sizes[0]);
    let steps = total_length.unwrap_or(longest);
    if steps < longest {
        panic!("pad_packed_sequence: total_length {steps} is less than the longest, {longest}");
    }
    let data = x.data();
    let total = data.shape()[0];
    let mut tail = data.shape().to_vec();
    tail[0] = 1;
    let padding = full(&tail[..], padding_value, data.dtype());
    let mut rows = vec![total; steps * n];
    let (mut start, back) = (0, x.unsorted_indices());
    for (t, &b) in x.batch_sizes.iter().enumerate() {
        for given in 0..n {
            let i = back.as_ref().map_or(given, |b| b[given]);
            if i < b {
                rows[t * n + given] = start + i;
            }
        }
        start += b;
    }
    let y = cat(&[data, &padding], 0).index_select(0, &index(rows.into_iter()));
    let mut shape = vec![steps, n];
    shape.extend(&tail[1..]);
    let y = y.reshape(&shape[..]);
    let lengths = x.sorted_lengths();
    let lengths = match &back {
        Some(back) => back.iter().map(|&i| lengths[i]).collect(),
        None => lengths,
    };
    (if batch_first { y.transpose(0, 1) } else { y }, lengths)
}

/// Sequences [Tᵢ, ..] as one tensor, [T, N, ..] or [N, T, ..] with `batch_first`, with
/// `padding_value` after their ends.
///
/// # Panics
/// If there are none, or they differ beyond the first dimension.
#[track_caller]
pub fn pad_sequence(
    sequences: &[&Tensor],
    batch_first: bool,
    padding_value: impl Into<Scalar>,
) -> Tensor {
    let Some(longest) = sequences.iter().map(|x| x.size(0)).max() else {
        panic!("pad_sequence: no sequences");
    };
    let value = padding_value.into();
    let padded: Vec<Tensor> = sequences
        .iter()
        .map(|x| {
            let mut widths = vec![(0, 0); x.rank()];
            widths[0].1 = longest - x.size(0);
            if widths[0].1 == 0 { (*x).clone() } else { x.pad(&widths, value) }
        })
        .collect();
    let refs: Vec<&Tensor> = padded.iter().collect();
    crate::tensor::stack(&refs, if batch_first { 0 } else { 1 })
}

/// [`pad_sequence`] and [`pack_padded_sequence`] in one.
///
/// # Panics
/// As either.
#[track_caller]
pub fn pack_sequence(sequences: &[&Tensor], enforce_sorted: bool) -> PackedSequence {
    let lengths: Vec<usize> = sequences.iter().map(|x| x.size(0)).collect();
    pack_padded_sequence(&pad_sequence(sequences, false, 0.0), &lengths, false, enforce_sorted)
}
