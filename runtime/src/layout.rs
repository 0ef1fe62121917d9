//! Shape and strides of an array, in one piece.
//!
//! Every eager op makes a layout or copies one, and on four elements little else
//! costs anything. So dimensions lie in place, in arrays of fixed size that are
//! copied whole: a list that copies as many numbers as it has makes the processor
//! wait for its own small stores whenever the list is moved. What is asked again
//! and again, the number of elements and whether they are dense, is kept.

use sinter_kernels::view::{is_contiguous, reach};

/// Dimensions that lie in place.
const PLACES: usize = 4;

/// Shape and strides.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    shape: [usize; PLACES],
    strides: [isize; PLACES],
    /// Shape and strides of an array with more dimensions.
    more: Option<Box<(Vec<usize>, Vec<isize>)>>,
    numel: usize,
    rank: u8,
    contiguous: bool,
}

impl Layout {
    /// The layout whose dimension `d` has the extent and stride `f(d)`.
    #[inline]
    pub(crate) fn build(rank: usize, mut f: impl FnMut(usize) -> (usize, isize)) -> Layout {
        let mut out = Layout {
            shape: [0; PLACES],
            strides: [0; PLACES],
            more: None,
            numel: 1,
            rank: rank as u8,
            contiguous: false,
        };
        if rank <= PLACES {
            for d in 0..rank {
                (out.shape[d], out.strides[d]) = f(d);
                out.numel = out.numel.saturating_mul(out.shape[d]);
            }
        } else {
            let more: (Vec<usize>, Vec<isize>) = (0..rank).map(f).unzip();
            out.numel = more.0.iter().fold(1, |n: usize, &d| n.saturating_mul(d));
            out.more = Some(Box::new(more));
        }
        out.contiguous = is_contiguous(out.shape(), out.strides());
        out
    }

    /// Dense, in row-major order.
    #[inline]
    pub(crate) fn dense(shape: &[usize]) -> Layout {
        let mut out = Layout::build(shape.len(), |d| (shape[d], 1));
        let mut step = 1isize;
        for (s, &n) in out.strides_mut().iter_mut().zip(shape).rev() {
            *s = step;
            step = step.wrapping_mul(n.max(1) as isize);
        }
        out.contiguous = true;
        out
    }

    #[inline]
    pub(crate) fn shape(&self) -> &[usize] {
        match &self.more {
            None => &self.shape[..self.rank as usize],
            Some(m) => &m.0,
        }
    }

    #[inline]
    pub(crate) fn strides(&self) -> &[isize] {
        match &self.more {
            None => &self.strides[..self.rank as usize],
            Some(m) => &m.1,
        }
    }

    #[inline]
    fn strides_mut(&mut self) -> &mut [isize] {
        match &mut self.more {
            None => &mut self.strides[..self.rank as usize],
            Some(m) => &mut m.1,
        }
    }

    #[inline]
    pub(crate) fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements.
    #[inline]
    pub(crate) fn numel(&self) -> usize {
        self.numel
    }

    /// Whether elements lie densely in row-major order.
    #[inline]
    pub(crate) fn is_contiguous(&self) -> bool {
        self.contiguous
    }

    /// Lowest and highest element reached from `offset` on; `None` of nothing.
    pub(crate) fn reach(&self, offset: usize) -> Option<(isize, isize)> {
        reach(self.shape(), self.strides(), offset)
    }

    /// The same with extent and stride of dimension `axis` replaced.
    pub(crate) fn with_axis(&self, axis: usize, n: usize, stride: isize) -> Layout {
        let (shape, strides) = (self.shape(), self.strides());
        Layout::build(self.rank(), |d| if d == axis { (n, stride) } else { (shape[d], strides[d]) })
    }

    /// Another shape for the same elements, where strides can express it.
    pub(crate) fn view(&self, shape: &[usize]) -> Option<Layout> {
        if shape.iter().product::<usize>() != self.numel {
            return None;
        }
        if self.contiguous {
            return Some(Layout::dense(shape));
        }
        let mut out = Layout::build(shape.len(), |d| (shape[d], 1));
        self.split(shape, out.strides_mut())?;
        out.contiguous = is_contiguous(out.shape(), out.strides());
        Some(out)
    }

    /// The strides that give these elements, at least one, the shape `new`: runs
    /// of mergeable dimensions are split to make the new ones.
    fn split(&self, new: &[usize], out: &mut [isize]) -> Option<()> {
        // Dimensions of size one constrain nothing.
        let mut old = self
            .shape()
            .iter()
            .copied()
            .zip(self.strides().iter().copied())
            .filter(|(n, _)| *n != 1)
            .rev();
        let mut j = new.len();
        while j > 0 {
            if new[j - 1] == 1 {
                j -= 1;
                continue;
            }
            // Gather old dimensions until they divide into whole new ones.
            let (mut have, base) = old.next()?;
            let mut want = 1;
            loop {
                while j > 0 && (new[j - 1] == 1 || have % (want * new[j - 1]) == 0) {
                    out[j - 1] = base * want as isize;
                    want *= new[j - 1];
                    j -= 1;
                    if want == have {
                        break;
                    }
                }
                if want == have {
                    break;
                }
                let (n, stride) = old.next()?;
                if stride != base * have as isize {
                    return None;
                }
                have *= n;
            }
        }
        Some(())
    }
}
