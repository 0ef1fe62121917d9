//! CUDA devices: finding them, memory on them, starting kernels.
//!
//! The driver library is looked up when the program runs; nothing of CUDA is needed
//! to build. Without a driver every function here is a [`DeviceError`], never a
//! panic. What a device has to do is a trait, [`Driver`]; above it lie a pool of memory,
//! which serves arrays ([`memory_stats`]), and the code of ops, which comes from a
//! [`KernelSource`].

mod driver;
mod pool;
mod source;

pub use driver::{Driver, Entry};
pub use pool::MemoryStats;
pub use source::{Code, KernelSource, Launch, Param, set_kernel_source};
pub(crate) use source::{kernel_source, launch};

use crate::{Array, DType, DeviceError, Scalar};
use pool::{Pool, PoolError};
use sinter_kernels::mem::Block;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The vendor's name.
    pub name: String,
    /// Bytes of memory.
    pub memory: usize,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
}

/// A device that is in use.
pub(crate) struct Context {
    index: u16,
    driver: Arc<dyn Driver>,
    info: DeviceInfo,
    pool: Mutex<Pool>,
    /// Functions that are ready, by the place of their code, which stays where it is.
    ready: Mutex<HashMap<usize, Ready>>,
    /// Numbers that lie on the device, by their type and bits.
    numbers: Mutex<HashMap<(DType, [u64; 2]), Array>>,
    waits: AtomicBool,
}

/// Code, and its function on the device.
type Ready = (Arc<Code>, Arc<dyn Entry>);

/// Devices in use. They stay until the program ends.
static CONTEXTS: RwLock<BTreeMap<u16, Arc<Context>>> = RwLock::new(BTreeMap::new());

/// Most numbers that are kept on a device.
const NUMBERS: usize = 1024;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics half-way through a change.
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Context {
    fn new(index: u16, driver: Arc<dyn Driver>) -> Result<Arc<Context>, DeviceError> {
        let info = driver.info().map_err(|message| DeviceError::Driver { index, message })?;
        Ok(Arc::new(Context {
            index,
            driver,
            info,
            pool: Mutex::new(Pool::new()),
            ready: Mutex::default(),
            numbers: Mutex::default(),
            waits: AtomicBool::new(false),
        }))
    }

    pub(crate) fn capability(&self) -> (u32, u32) {
        self.info.compute_capability
    }

    fn failed(&self, message: String) -> DeviceError {
        DeviceError::Driver { index: self.index, message }
    }

    /// Memory for `len` bytes.
    fn allocate(self: &Arc<Context>, len: usize) -> Result<Memory, DeviceError> {
        if len == 0 {
            return Ok(Memory { on: self.clone(), address: 0, len });
        }
        let mut pool = lock(&self.pool);
        let address = match pool.allocate(len, &*self.driver) {
            Ok(address) => address,
            Err(PoolError::Driver(message)) => return Err(self.failed(message)),
            Err(PoolError::Full) => {
                let s = pool.stats();
                return Err(DeviceError::OutOfMemory {
                    index: self.index,
                    requested: len,
                    allocated: s.allocated,
                    reserved: s.reserved,
                    total: self.info.memory,
                });
            }
        };
        Ok(Memory { on: self.clone(), address, len })
    }

    /// Starts a function, which is loaded at its first use.
    #[allow(unsafe_code)]
    fn launch(
        &self,
        code: &Arc<Code>,
        blocks: u32,
        threads: u32,
        params: &[u64],
    ) -> Result<(), DeviceError> {
        let key = Arc::as_ptr(code) as usize;
        let known = lock(&self.ready).get(&key).map(|(_, e)| e.clone());
        let entry = match known {
            Some(e) => e,
            None => {
                let e = self.driver.load(&code.ptx, &code.entry).map_err(|e| self.failed(e))?;
                let e: Arc<dyn Entry> = Arc::from(e);
                lock(&self.ready).insert(key, (code.clone(), e.clone()));
                e
            }
        };
        // SAFETY: kernel sources promise that their code, with these parameters, stays
        // inside the arrays it was made for, which are alive; their memory is used again
        // by what is started later only.
        unsafe { entry.launch(blocks, threads, params) }.map_err(|e| self.failed(e))?;
        if self.waits.load(Ordering::Relaxed) {
            self.driver.synchronize().map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// An array of one element with this one's value, which nobody may write.
    pub(crate) fn number(self: &Arc<Context>, x: &Array) -> Result<Array, DeviceError> {
        let bytes = x.to_bytes();
        let mut bits = [0u8; 16];
        bits[..bytes.len()].copy_from_slice(&bytes);
        let (low, high) = bits.split_at(8);
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes"));
        let key = (x.dtype(), [word(low), word(high)]);
        if let Some(a) = lock(&self.numbers).get(&key) {
            return Ok(a.clone());
        }
        let made = upload(x, self)?;
        let mut numbers = lock(&self.numbers);
        if numbers.len() >= NUMBERS {
            numbers.clear();
        }
        numbers.insert(key, made.clone());
        Ok(made)
    }
}

/// Memory of a device, kept by the block of an array.
struct Memory {
    on: Arc<Context>,
    address: u64,
    len: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.len > 0 {
            // Without caching, the driver may refuse; whoever asks it next hears of it.
            let _ = lock(&self.on.pool).free(self.address, &*self.on.driver);
        }
    }
}

/// The device of that number, from now on in use.
pub(crate) fn context(index: u16) -> Result<Arc<Context>, DeviceError> {
    let known = |all: &BTreeMap<u16, Arc<Context>>| all.get(&index).cloned();
    if let Some(c) = known(&CONTEXTS.read().unwrap_or_else(|e| e.into_inner())) {
        return Ok(c);
    }
    let mut all = CONTEXTS.write().unwrap_or_else(|e| e.into_inner());
    if let Some(c) = known(&all) {
        return Ok(c);
    }
    let c = Context::new(index, Arc::new(driver::Nvidia::new(index)?))?;
    all.insert(index, c.clone());
    Ok(c)
}

/// For tests: has `cuda:index` be a device that is simulated by `driver`, in this process
/// and from now on. No device is ever simulated without this call.
///
/// # Errors
/// When the device cannot say what it is.
///
/// # Panics
/// If the device is in use already.
pub fn simulate(index: u16, driver: Arc<dyn Driver>) -> Result<(), DeviceError> {
    let mut all = CONTEXTS.write().unwrap_or_else(|e| e.into_inner());
    assert!(!all.contains_key(&index), "simulate: cuda:{index} is in use");
    all.insert(index, Context::new(index, driver)?);
    Ok(())
}

/// The driver of a device, to use it by hand.
///
/// # Errors
/// When the driver or the device is missing.
pub fn driver(index: u16) -> Result<Arc<dyn Driver>, DeviceError> {
    Ok(context(index)?.driver.clone())
}

/// Checks that the device is there.
///
/// # Errors
/// When the driver or the device is missing.
pub fn probe(index: u16) -> Result<(), DeviceError> {
    let used = CONTEXTS.read().unwrap_or_else(|e| e.into_inner()).contains_key(&index);
    if used { Ok(()) } else { driver::probe(index) }
}

/// What the device is.
///
/// # Errors
/// As [`probe`], and when the driver fails.
pub fn info(index: u16) -> Result<DeviceInfo, DeviceError> {
    Ok(context(index)?.info.clone())
}

/// How much memory a device has given to arrays, and keeps for them.
///
/// # Errors
/// As [`probe`].
pub fn memory_stats(index: u16) -> Result<MemoryStats, DeviceError> {
    Ok(lock(&context(index)?.pool).stats())
}

/// Starts new measurements of the most memory that is in use.
///
/// # Errors
/// As [`probe`].
pub fn reset_peak_memory_stats(index: u16) -> Result<(), DeviceError> {
    lock(&context(index)?.pool).reset_peak();
    Ok(())
}

/// Gives memory that is kept for later back to the driver.
///
/// # Errors
/// As [`probe`], and when the driver fails.
pub fn empty_cache(index: u16) -> Result<(), DeviceError> {
    let c = context(index)?;
    let kept = std::mem::take(&mut *lock(&c.numbers));
    drop(kept);
    lock(&c.pool).empty(&*c.driver).map_err(|e| c.failed(e))
}

/// Turns keeping freed memory on or off (on at first). Off, every array is an allocation
/// of the driver's, so that its tools see each one.
///
/// # Errors
/// As [`probe`], and when the driver fails.
pub fn set_caching(index: u16, on: bool) -> Result<(), DeviceError> {
    let c = context(index)?;
    lock(&c.pool).set_caching(on, &*c.driver).map_err(|e| c.failed(e))
}

/// Waits until all work of a device is done.
///
/// # Errors
/// As [`probe`], and when something that was started has failed since.
pub fn synchronize(index: u16) -> Result<(), DeviceError> {
    let c = context(index)?;
    c.driver.synchronize().map_err(|e| c.failed(e))
}

/// Has every op on a device wait until it is done (off at first): an error on the device
/// is then one of the op that made it, not of a later one. Slow, for finding mistakes.
///
/// # Errors
/// As [`probe`].
pub fn set_blocking(index: u16, on: bool) -> Result<(), DeviceError> {
    context(index)?.waits.store(on, Ordering::Relaxed);
    Ok(())
}

// ---------------------------------------------------------------- memory of arrays

/// A block of `len` bytes on a device.
pub(crate) fn block(index: u16, len: usize) -> Result<Block, DeviceError> {
    Ok(Block::on_device(context(index)?.allocate(len)?, len))
}

/// Where a block lies on its device.
pub(crate) fn address(block: &Block) -> Option<u64> {
    block.owner::<Memory>().map(|m| m.address)
}

fn memory(block: &Block) -> &Memory {
    block.owner().expect("called on blocks of devices")
}

/// A dense array of the processor's on a device.
#[allow(unsafe_code)]
pub(crate) fn upload(x: &Array, on: &Arc<Context>) -> Result<Array, DeviceError> {
    let len = x.numel() * x.dtype().size();
    let m = on.allocate(len)?;
    if len > 0 {
        let from = x.byte_range();
        // SAFETY: of bytes that only arrays of the processor's share; ordering changes in
        // place by other threads is the program's business.
        let bytes = unsafe { x.block().slice::<u8>(from.start, len) };
        // SAFETY: the memory was just allocated, of that size.
        unsafe { on.driver.upload(bytes, m.address) }.map_err(|e| on.failed(e))?;
    }
    let device = crate::Device::Cuda(on.index);
    Ok(Array::on_device(Block::on_device(m, len), x.shape(), x.dtype(), device))
}

/// The bytes `range` of a block on a device, in a new block.
#[allow(unsafe_code)]
pub(crate) fn download(
    block: &Block,
    range: std::ops::Range<usize>,
) -> Result<Vec<u8>, DeviceError> {
    let m = memory(block);
    assert!(range.end <= m.len, "bytes {range:?} of a block of {}", m.len);
    let mut bytes = vec![0; range.len()];
    if !bytes.is_empty() {
        // SAFETY: inside the block's memory, as was just checked.
        unsafe { m.on.driver.download(m.address + range.start as u64, &mut bytes) }
            .map_err(|e| m.on.failed(e))?;
    }
    Ok(bytes)
}

/// Copies bytes of a device on it, from the ranges' starts; they do not overlap.
#[allow(unsafe_code)]
pub(crate) fn copy(
    (from, at): (&Block, usize),
    (to, place): (&Block, usize),
    len: usize,
) -> Result<(), DeviceError> {
    let (a, b) = (memory(from), memory(to));
    assert!(at + len <= a.len && place + len <= b.len, "{len} bytes leave their block");
    if len == 0 {
        return Ok(());
    }
    // SAFETY: inside both blocks, as was just checked.
    unsafe { a.on.driver.copy(a.address + at as u64, b.address + place as u64, len) }
        .map_err(|e| a.on.failed(e))
}

/// A number on a device: see [`Context::number`].
pub(crate) fn number(index: u16, value: Scalar, dtype: DType) -> Result<Array, crate::OpError> {
    let x = Array::scalar(value, dtype)?;
    let made = context(index).and_then(|c| c.number(&x));
    made.map_err(|e| crate::OpError::device("full", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn a_missing_driver_or_device_is_an_error_that_says_so() {
        match probe(0) {
            Err(DeviceError::NoDriver(0)) => {
                assert_eq!(Device::cuda(0), Err(DeviceError::NoDriver(0)));
                assert!(matches!(info(0), Err(DeviceError::NoDriver(0))));
                assert!(matches!(memory_stats(0), Err(DeviceError::NoDriver(0))));
                let x = Array::from_slice(&[1f32], &[1]).unwrap();
                let e = x.to_device(Device::Cuda(0)).unwrap_err();
                assert!(e.to_string().contains("no NVIDIA driver"), "{e}");
            }
            Err(e) => assert!(e.to_string().contains("cuda:0"), "{e}"),
            Ok(()) => {
                let bytes: Vec<u8> = (0..=255).collect();
                let x = Array::from_slice(&bytes, &[16, 16]).unwrap();
                let y = x.to_device(Device::cuda(0).unwrap()).unwrap();
                assert_eq!(y.permute(&[1, 0]).to_vec::<u8>(), x.permute(&[1, 0]).to_vec::<u8>());
                assert!(info(0).expect("the device is there").memory > 0);
            }
        }
        assert!(Device::cuda(u16::MAX).is_err());
    }
}
