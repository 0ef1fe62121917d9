//! The iteration space of one op on arrays that exist: as few axes as their strides
//! allow, and what of the layout its kernel is made for.

use sinter_runtime::dim::MAX_SYMBOLS;
use sinter_runtime::{Array, Dim, Extent};
use smallvec::SmallVec;

/// Numbers along axes.
pub(super) type Line = SmallVec<[i64; 6]>;

/// The axes that an op walks, and the distance of each argument's neighbours along them.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) extents: Line,
    /// Leading axes whose iterations do not depend on each other; the others are reduced.
    pub(super) parallel: usize,
    pub(super) strides: SmallVec<[Line; 4]>,
}

/// What of a distance a kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Step {
    /// It does not move.
    Still,
    /// To the next element.
    One,
    /// By a number that is said at the launch.
    Any,
    /// By the number that is said of that place: where there would be too many.
    Same(u8),
}

/// What of an argument's distances a kernel is made for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Walk {
    /// Elements lie densely in the order of the axes whose bits are set; along the others
    /// it does not move.
    Dense(u16),
    /// The same as those of an earlier argument.
    Like(u8),
    /// Of each axis.
    Steps(SmallVec<[Step; 6]>),
}

/// The strides of an array repeated to a shape of `rank` dimensions, aligned at the last.
pub(super) fn repeated(a: &Array, shape: &[usize]) -> Line {
    let lead = shape.len() - a.rank();
    let one = |d: usize| match d.checked_sub(lead) {
        Some(i) if a.shape()[i] == shape[d] => a.strides()[i] as i64,
        _ => 0,
    };
    (0..shape.len()).map(one).collect()
}

impl Space {
    /// A space of these extents, the axes from `parallel` on reduced.
    pub(super) fn new(extents: &[usize], parallel: usize, strides: SmallVec<[Line; 4]>) -> Space {
        Space { extents: extents.iter().map(|&n| n as i64).collect(), parallel, strides }
    }

    fn remove(&mut self, axis: usize) {
        self.extents.remove(axis);
        for s in &mut self.strides {
            s.remove(axis);
        }
        self.parallel -= usize::from(axis < self.parallel);
    }

    /// Drops axes of one element and joins neighbours where all arguments go on without a
    /// gap. The axis `pinned` stays; its place afterwards is returned. There is an axis of
    /// each kind at the end that there was at the beginning, and a parallel one.
    pub(super) fn collapse(&mut self, mut pinned: Option<usize>) -> Option<usize> {
        if self.parallel == 0 {
            self.extents.insert(0, 1);
            self.strides.iter_mut().for_each(|s| s.insert(0, 0));
            self.parallel = 1;
            pinned = pinned.map(|p| p + 1);
        }
        let mut d = 0;
        while d < self.extents.len() {
            let range = if d < self.parallel {
                0..self.parallel
            } else {
                self.parallel..self.extents.len()
            };
            let only = range.len() == 1;
            if self.extents[d] == 1 && !only && pinned != Some(d) {
                self.remove(d);
                pinned = pinned.map(|p| p - usize::from(p > d));
                continue;
            }
            let n = self.extents.get(d + 1).copied();
            let joins = range.contains(&(d + 1))
                && pinned != Some(d)
                && pinned != Some(d + 1)
                && n.is_some_and(|n| self.strides.iter().all(|s| s[d] == s[d + 1].wrapping_mul(n)));
            if joins {
                self.extents[d + 1] *= self.extents[d];
                self.remove(d);
                pinned = pinned.map(|p| p - usize::from(p > d));
                d = d.saturating_sub(1);
                continue;
            }
            d += 1;
        }
        pinned
    }

    /// What each argument's distances are like.
    pub(super) fn walks(&self) -> SmallVec<[Walk; 4]> {
        let one = |(i, s): (usize, &Line)| {
            // Nobody steps along an axis of one element.
            let same = |a: &Line, b: &Line| {
                a.iter().zip(b).zip(&self.extents).all(|((a, b), n)| a == b || *n == 1)
            };
            let moves = |d: usize| s[d] != 0 || self.extents[d] == 1;
            let mut dense: Line = s.iter().map(|_| 0).collect();
            let mut step = 1i64;
            for d in (0..s.len()).rev().filter(|&d| moves(d)) {
                dense[d] = step;
                step = step.wrapping_mul(self.extents[d]);
            }
            if same(s, &dense) {
                return Walk::Dense((0..s.len()).filter(|&d| moves(d)).map(|d| 1 << d).sum());
            }
            if let Some(j) = self.strides[..i].iter().position(|o| same(o, s)) {
                return Walk::Like(j as u8);
            }
            let kind = |(&s, &n): (&i64, &i64)| match s {
                _ if n == 1 => Step::One,
                0 => Step::Still,
                1 => Step::One,
                _ => Step::Any,
            };
            Walk::Steps(s.iter().zip(&self.extents).map(kind).collect())
        };
        let mut walks: SmallVec<[Walk; 4]> = self.strides.iter().enumerate().map(one).collect();
        // One place is left for the step of what is looked up.
        if self.numbers(&walks).len() >= MAX_SYMBOLS {
            self.share(&mut walks);
        }
        walks
    }

    /// Has equal distances be one number.
    fn share(&self, walks: &mut [Walk]) {
        let mut known: SmallVec<[i64; 16]> = self.extents.iter().copied().collect();
        for (w, s) in walks.iter_mut().zip(&self.strides) {
            let Walk::Steps(steps) = w else { continue };
            for (kind, s) in steps.iter_mut().zip(s).filter(|(kind, _)| **kind == Step::Any) {
                match known.iter().position(|k| k == s) {
                    Some(place) => *kind = Step::Same(place as u8),
                    None => known.push(*s),
                }
            }
        }
    }

    /// Extents and strides of a kernel for all spaces like this, in symbols; when `far`, with
    /// one more symbol for the step of what is looked up.
    pub(super) fn symbolic(&self, walks: &[Walk], far: bool) -> Result<Symbolic, String> {
        let all = self.numbers(walks).len() + usize::from(far);
        if all > MAX_SYMBOLS {
            return Err(format!(
                "its operands are strided along too many dimensions ({all} sizes and distances, at most {MAX_SYMBOLS}); make them contiguous first"
            ));
        }
        let extents: Vec<Dim> = (0..self.extents.len()).map(Dim::symbol).collect();
        let mut symbols = extents.len()..;
        let mut strides: Vec<Vec<Dim>> = vec![];
        for w in walks {
            strides.push(match w {
                Walk::Dense(moves) => {
                    let mut step = Dim::of(1);
                    let mut out = vec![Dim::of(0); extents.len()];
                    for d in (0..out.len()).rev().filter(|d| moves >> d & 1 == 1) {
                        out[d] = step.clone();
                        step = step.times(&extents[d]);
                    }
                    out
                }
                Walk::Like(j) => strides[*j as usize].clone(),
                Walk::Steps(steps) => steps
                    .iter()
                    .map(|kind| match kind {
                        Step::Still => Dim::of(0),
                        Step::One => Dim::of(1),
                        Step::Same(place) => Dim::symbol(usize::from(*place)),
                        Step::Any => Dim::symbol(symbols.next().expect("there is no end")),
                    })
                    .collect(),
            });
        }
        Ok(Symbolic { extents, strides, far: far.then(|| Dim::symbol(all - 1)) })
    }

    /// The numbers of the symbols, here.
    pub(super) fn numbers(&self, walks: &[Walk]) -> SmallVec<[i64; 16]> {
        let mut numbers: SmallVec<[i64; 16]> = self.extents.iter().copied().collect();
        for (w, s) in walks.iter().zip(&self.strides) {
            if let Walk::Steps(steps) = w {
                let any = steps.iter().zip(s).filter(|(kind, _)| **kind == Step::Any);
                numbers.extend(any.map(|(_, s)| *s));
            }
        }
        numbers
    }
}

/// A space in symbols.
pub(super) struct Symbolic {
    pub(super) extents: Vec<Dim>,
    pub(super) strides: Vec<Vec<Dim>>,
    pub(super) far: Option<Dim>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    #[test]
    fn dense_arguments_are_one_line() {
        let strides = smallvec![Line::from_slice(&[12, 4, 1]), Line::from_slice(&[12, 4, 1])];
        let mut s = Space::new(&[2, 3, 4], 3, strides);
        assert_eq!(s.collapse(None), None);
        assert_eq!(s.extents.as_slice(), [24]);
        assert_eq!(s.walks().as_slice(), [Walk::Dense(1), Walk::Dense(1)]);
        assert_eq!(s.numbers(&s.walks()).as_slice(), [24]);
    }

    #[test]
    fn what_is_repeated_or_permuted_keeps_its_axes() {
        let strides = smallvec![
            Line::from_slice(&[12, 0, 4, 1]),
            Line::from_slice(&[0, 0, 0, 1]),
            Line::from_slice(&[1, 0, 2, 6])
        ];
        let mut s = Space::new(&[2, 1, 3, 4], 4, strides);
        s.collapse(None);
        assert_eq!(s.extents.as_slice(), [2, 3, 4]);
        let w = s.walks();
        assert_eq!((&w[0], &w[1]), (&Walk::Dense(0b111), &Walk::Dense(0b100)));
        assert_eq!(s.numbers(&w).as_slice(), [2, 3, 4, 2, 6]);
        let last = s.symbolic(&w, false).unwrap().strides.pop().unwrap();
        assert_eq!(last, [Dim::of(1), Dim::symbol(3), Dim::symbol(4)]);
    }

    #[test]
    fn equal_distances_are_one_number_where_there_are_many() {
        let extents = [3, 5, 7, 9, 11, 13];
        let far = |n: i64| -> Line { (0..6).map(|i| 1000 * n + 10 * (i % 3)).collect() };
        let s = Space::new(&extents, 6, smallvec![far(1), far(2)]);
        let w = s.walks();
        assert_eq!(s.numbers(&w).len(), 6 + 2 * 3);
        let strides = s.symbolic(&w, true).unwrap().strides;
        assert_eq!(strides[1][..3], strides[1][3..]);
        assert!((0..6).all(|i| {
            strides[1][i]
                .eval_signed(&s.numbers(&w).iter().map(|&n| n as usize).collect::<Vec<_>>())
                == Some(s.strides[1][i])
        }));
    }

    #[test]
    fn rows_and_what_is_counted_stay() {
        let mut s = Space::new(&[1, 1], 1, smallvec![Line::from_slice(&[1, 1])]);
        assert_eq!(s.collapse(Some(1)), Some(1));
        assert_eq!((s.extents.as_slice(), s.parallel), (&[1, 1][..], 1));
        let mut s = Space::new(&[5], 0, smallvec![Line::from_slice(&[1])]);
        assert_eq!(s.collapse(Some(0)), Some(1));
        assert_eq!((s.extents.as_slice(), s.parallel), (&[1, 5][..], 1));
    }
}
