//! Batches, in order, prepared by worker threads ahead of their use.

use super::{Collate, Dataset, shuffled};
use crate::no_grad;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// How batches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Shuffle, with an order that depends on this and the epoch alone.
    pub shuffle: Option<u64>,
    /// Leave out a last batch that is not full.
    pub drop_last: bool,
    /// Threads that prepare batches; 0: the caller does.
    pub workers: usize,
    /// Batches prepared ahead by each worker.
    pub prefetch: usize,
}

impl Default for LoaderOptions {
    fn default() -> LoaderOptions {
        LoaderOptions { batch_size: 1, shuffle: None, drop_last: false, workers: 0, prefetch: 2 }
    }
}

/// Loads a data set in batches.
///
/// The batches of an epoch are the same for any number of workers.
///
/// ```
/// use sinter::data::{DataLoader, LoaderOptions, TensorDataset};
/// use sinter::{arange, zeros};
/// let data = TensorDataset::new(arange(0, 5, 1), zeros([5]));
/// let options = LoaderOptions { batch_size: 2, workers: 2, ..Default::default() };
/// let loader = DataLoader::new(data, options);
/// let sizes: Vec<usize> = loader.epoch(0).map(|(x, _)| x.size(0)).collect();
/// assert_eq!(sizes, [2, 2, 1]);
/// ```
pub struct DataLoader<D> {
    data: Arc<D>,
    options: LoaderOptions,
}

impl<D> DataLoader<D>
where
    D: Dataset + 'static,
    D::Sample: Collate + 'static,
{
    /// A loader of `data`.
    ///
    /// # Panics
    /// If the batch size is 0.
    #[track_caller]
    pub fn new(data: D, options: LoaderOptions) -> DataLoader<D> {
        if options.batch_size == 0 {
            panic!("DataLoader: the batch size is 0");
        }
        DataLoader { data: Arc::new(data), options }
    }

    /// Number of batches in an epoch.
    pub fn len(&self) -> usize {
        let (n, b) = (self.data.len(), self.options.batch_size);
        if self.options.drop_last { n / b } else { n.div_ceil(b) }
    }

    /// Whether an epoch has no batches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data set.
    pub fn dataset(&self) -> &D {
        &self.data
    }

    /// The batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Batches<D> {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from number `first` on: where a run was broken off.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Batches<D> {
        let n = self.data.len();
        let order = match self.options.shuffle {
            // One stream a seed and epoch.
            Some(seed) => shuffled(n, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ epoch),
            None => (0..n).collect(),
        };
        Batches {
            data: self.data.clone(),
            order,
            size: self.options.batch_size,
            count: self.len(),
            next: first.min(self.len()),
            pool: (self.options.workers > 0).then(|| Pool::start(&self.data, &self.options)),
        }
    }
}

/// The batches of an epoch, in order.
pub struct Batches<D>
where
    D: Dataset,
    D::Sample: Collate,
{
    data: Arc<D>,
    order: Vec<usize>,
    size: usize,
    count: usize,
    next: usize,
    pool: Option<Pool<<D::Sample as Collate>::Batch>>,
}

fn make<D>(data: &D, indices: &[usize]) -> <D::Sample as Collate>::Batch
where
    D: Dataset,
    D::Sample: Collate,
{
    no_grad(|| D::Sample::collate(indices.iter().map(|&i| data.get(i)).collect()))
}

impl<D> Batches<D>
where
    D: Dataset,
    D::Sample: Collate,
{
    fn indices(&self, batch: usize) -> Vec<usize> {
        let end = ((batch + 1) * self.size).min(self.order.len());
        self.order[batch * self.size..end].to_vec()
    }
}

impl<D> Iterator for Batches<D>
where
    D: Dataset,
    D::Sample: Collate,
{
    type Item = <D::Sample as Collate>::Batch;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        let n = self.next;
        self.next += 1;
        let Some(mut pool) = self.pool.take() else {
            return Some(make(&*self.data, &self.indices(n)));
        };
        // Keep the workers busy ahead of the one that is due.
        pool.asked = pool.asked.max(n);
        while pool.asked < self.count && pool.asked - n < pool.ahead {
            pool.ask(pool.asked, self.indices(pool.asked));
            pool.asked += 1;
        }
        let batch = pool.wait(n);
        self.pool = Some(pool);
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.next.min(self.count);
        (left, Some(left))
    }
}

type Job = (usize, Vec<usize>);
type Outcome<B> = Result<B, String>;

struct Pool<B> {
    jobs: Option<Sender<Job>>,
    results: Receiver<(usize, Outcome<B>)>,
    /// Batches that came before their turn.
    early: BTreeMap<usize, Outcome<B>>,
    asked: usize,
    ahead: usize,
    workers: Vec<JoinHandle<()>>,
}

impl<B: Send + 'static> Pool<B> {
    fn start<D>(data: &Arc<D>, options: &LoaderOptions) -> Pool<B>
    where
        D: Dataset + 'static,
        D::Sample: Collate<Batch = B>,
    {
        let (jobs, queue) = channel::<Job>();
        let (done, results) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..options.workers)
            .map(|i| {
                let (data, queue, done) = (data.clone(), queue.clone(), done.clone());
                std::thread::Builder::new()
                    .name(format!("sinter-loader-{i}"))
                    .spawn(move || {
                        loop {
                            let job = queue.lock().unwrap_or_else(|e| e.into_inner()).recv();
                            let Ok((n, indices)) = job else { break };
                            let made = std::panic::catch_unwind(AssertUnwindSafe(|| {
                                make(&*data, &indices)
                            }));
                            let outcome = made.map_err(|p| message(&*p));
                            if done.send((n, outcome)).is_err() {
                                break;
                            }
                        }
                    })
                    .expect("the operating system refused to start a loader thread")
            })
            .collect();
        Pool {
            jobs: Some(jobs),
            results,
            early: BTreeMap::new(),
            asked: 0,
            ahead: options.workers * options.prefetch.max(1),
            workers,
        }
    }
}

impl<B> Pool<B> {
    fn ask(&self, n: usize, indices: Vec<usize>) {
        if let Some(j) = &self.jobs {
            // Workers outlive the queue, so the send arrives.
            let _ = j.send((n, indices));
        }
    }

    fn wait(&mut self, n: usize) -> B {
        loop {
            if let Some(outcome) = self.early.remove(&n) {
                match outcome {
                    Ok(b) => return b,
                    Err(e) => panic!("DataLoader: a worker failed on batch {n}: {e}"),
                }
            }
            match self.results.recv() {
                Ok((k, outcome)) => {
                    self.early.insert(k, outcome);
                }
                Err(_) => panic!("DataLoader: the workers died before batch {n}"),
            }
        }
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        // Without a queue the workers end after the batch they are at.
        self.jobs = None;
        for w in self.workers.drain(..) {
            let _ = w.join();
        }
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_string()))
        .unwrap_or_else(|| "it panicked".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Squares(usize, Option<usize>);

    impl Dataset for Squares {
        type Sample = i64;
        fn len(&self) -> usize {
            self.0
        }
        fn get(&self, i: usize) -> i64 {
            assert!(Some(i) != self.1, "sample {i} is broken");
            (i * i) as i64
        }
    }

    fn all(options: LoaderOptions) -> Vec<Vec<i64>> {
        DataLoader::new(Squares(23, None), options).epoch(3).map(|b| b.to_vec()).collect()
    }

    #[test]
    fn batches_do_not_depend_on_workers() {
        let base = LoaderOptions { batch_size: 4, shuffle: Some(9), ..Default::default() };
        let alone = all(base);
        assert_eq!(alone.len(), 6);
        for workers in [1, 2, 5] {
            assert_eq!(all(LoaderOptions { workers, ..base }), alone);
        }
        let mut flat: Vec<i64> = alone.concat();
        flat.sort_unstable();
        assert_eq!(flat, (0..23).map(|i| i * i).collect::<Vec<i64>>());
        assert_eq!(all(LoaderOptions { drop_last: true, ..base }).len(), 5);
    }

    #[test]
    fn an_epoch_can_be_taken_up_again() {
        let options =
            LoaderOptions { batch_size: 4, shuffle: Some(1), workers: 2, ..Default::default() };
        let l = DataLoader::new(Squares(23, None), options);
        let whole: Vec<Vec<i64>> = l.epoch(0).map(|b| b.to_vec()).collect();
        let rest: Vec<Vec<i64>> = l.epoch_from(0, 4).map(|b| b.to_vec()).collect();
        assert_eq!(rest, whole[4..]);
        assert_ne!(l.epoch(1).next().unwrap().to_vec::<i64>(), whole[0]);
    }

    #[test]
    fn a_failing_sample_is_named() {
        for workers in [1, 3] {
            let options = LoaderOptions { batch_size: 5, workers, ..Default::default() };
            let l = DataLoader::new(Squares(23, Some(12)), options);
            let mut it = l.epoch(0);
            assert!(it.next().is_some() && it.next().is_some());
            let r = std::panic::catch_unwind(AssertUnwindSafe(|| it.next()));
            let text = message(&*r.unwrap_err());
            assert!(text.contains("batch 2") && text.contains("sample 12 is broken"), "{text}");
        }
    }

    #[test]
    fn leaving_early_stops_the_workers() {
        let options = LoaderOptions { batch_size: 1, workers: 2, ..Default::default() };
        let l = DataLoader::new(Squares(1000, None), options);
        assert_eq!(l.epoch(0).take(3).count(), 3);
    }
}
