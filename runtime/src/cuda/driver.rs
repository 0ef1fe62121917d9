//! The seam between arrays and a device: what a device must do, and the vendor's driver
//! doing it.

use super::DeviceInfo;
use crate::DeviceError;
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, result, sys};
use cudarc::nvrtc::Ptx;
use std::ffi::c_void;
use std::sync::Arc;

/// What a device does. Everything happens in the order in which it was asked for; what
/// gives no data back may return before it is done, and fail when something else is asked.
/// Errors are the device's own words.
///
/// There is one implementation for real devices. Tests bring their own: see
/// [`simulate`](super::simulate).
#[allow(unsafe_code)]
pub trait Driver: Send + Sync {
    /// What the device is.
    ///
    /// # Errors
    /// When the device fails.
    fn info(&self) -> Result<DeviceInfo, String>;

    /// The address of `len` bytes, at least one, aligned to 256; `None` when the device has
    /// no such memory left. What they hold is unspecified.
    ///
    /// # Errors
    /// When the device fails.
    fn allocate(&self, len: usize) -> Result<Option<u64>, String>;

    /// Gives memory back, once what was started on it is done.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Safety
    /// The address comes from [`allocate`](Driver::allocate), and nobody uses it any more.
    unsafe fn free(&self, address: u64) -> Result<(), String>;

    /// Copies bytes to the device; they are not needed any longer afterwards.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Safety
    /// There is memory of the device for them at that address.
    unsafe fn upload(&self, bytes: &[u8], to: u64) -> Result<(), String>;

    /// Copies bytes from the device, after everything that was started before.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Safety
    /// There is as much memory of the device at that address.
    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), String>;

    /// Copies bytes on the device.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Safety
    /// Both are memory of the device, and do not overlap.
    unsafe fn copy(&self, from: u64, to: u64, len: usize) -> Result<(), String>;

    /// Has the function `entry` of a text of PTX made ready.
    ///
    /// # Errors
    /// When the device refuses the text: for another architecture, or a version of PTX
    /// that it does not know yet.
    fn load(&self, ptx: &str, entry: &str) -> Result<Box<dyn Entry>, String>;

    /// Waits until everything that was started is done.
    ///
    /// # Errors
    /// When something of it failed.
    fn synchronize(&self) -> Result<(), String>;
}

/// A function on a device.
#[allow(unsafe_code)]
pub trait Entry: Send + Sync {
    /// Starts it on `blocks` blocks, at least one, of `threads` threads each.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Safety
    /// It takes these parameters, 64 bits wide each, and stays with them inside memory of
    /// the device that nothing else uses meanwhile.
    unsafe fn launch(&self, blocks: u32, threads: u32, params: &[u64]) -> Result<(), String>;
}

/// The vendor's driver, on its default stream.
pub(super) struct Nvidia {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
}

struct Function {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

fn words(e: DriverError) -> String {
    e.to_string()
}

/// Checks that the driver is there and knows the device.
#[allow(unsafe_code)]
pub(super) fn probe(index: u16) -> Result<(), DeviceError> {
    // SAFETY: only looks the library up; loading it runs the vendor's initialisers,
    // as in every program that is linked against it.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::NoDriver(index));
    }
    let failed = |e| DeviceError::Driver { index, message: words(e) };
    let count = usize::try_from(CudaContext::device_count().map_err(failed)?).unwrap_or(0);
    if usize::from(index) < count {
        Ok(())
    } else {
        Err(DeviceError::NoSuchDevice { index, count })
    }
}

impl Nvidia {
    pub(super) fn new(index: u16) -> Result<Nvidia, DeviceError> {
        probe(index)?;
        let failed = |e| DeviceError::Driver { index, message: words(e) };
        let context = CudaContext::new(index.into()).map_err(failed)?;
        let stream = context.default_stream();
        Ok(Nvidia { context, stream })
    }

    /// Calls of the driver are about the thread's own context.
    fn bound(&self) -> Result<(), String> {
        self.context.bind_to_thread().map_err(words)
    }
}

#[allow(unsafe_code)]
impl Driver for Nvidia {
    fn info(&self) -> Result<DeviceInfo, String> {
        let (major, minor) = self.context.compute_capability().map_err(words)?;
        Ok(DeviceInfo {
            name: self.context.name().map_err(words)?,
            memory: self.context.total_mem().map_err(words)?,
            compute_capability: (major.unsigned_abs(), minor.unsigned_abs()),
        })
    }

    fn allocate(&self, len: usize) -> Result<Option<u64>, String> {
        self.bound()?;
        // SAFETY: the driver's allocation, of a length that is not zero.
        match unsafe { result::malloc_sync(len) } {
            Ok(address) => Ok(Some(address)),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            Err(e) => Err(words(e)),
        }
    }

    unsafe fn free(&self, address: u64) -> Result<(), String> {
        self.bound()?;
        // SAFETY: the caller's promise; the driver waits for what is under way.
        unsafe { result::free_sync(address) }.map_err(words)
    }

    unsafe fn upload(&self, bytes: &[u8], to: u64) -> Result<(), String> {
        self.bound()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_htod_sync(to, bytes) }.map_err(words)
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), String> {
        self.bound()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtoh_sync(bytes, from) }.map_err(words)
    }

    unsafe fn copy(&self, from: u64, to: u64, len: usize) -> Result<(), String> {
        self.bound()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, len, self.stream.cu_stream()) }.map_err(words)
    }

    fn load(&self, ptx: &str, entry: &str) -> Result<Box<dyn Entry>, String> {
        if ptx.contains('\0') || entry.contains('\0') {
            return Err("PTX with a NUL in it".to_string());
        }
        let module = self.context.load_module(Ptx::from_src(ptx)).map_err(words)?;
        let function = module.load_function(entry).map_err(words)?;
        Ok(Box::new(Function { function, stream: self.stream.clone() }))
    }

    fn synchronize(&self) -> Result<(), String> {
        self.stream.synchronize().map_err(words)
    }
}

#[allow(unsafe_code)]
impl Entry for Function {
    unsafe fn launch(&self, blocks: u32, threads: u32, params: &[u64]) -> Result<(), String> {
        self.stream.context().bind_to_thread().map_err(words)?;
        let mut places: Vec<*mut c_void> =
            params.iter().map(|p| std::ptr::from_ref(p).cast_mut().cast()).collect();
        let (grid, block) = ((blocks, 1, 1), (threads, 1, 1));
        let f = self.function.cu_function();
        // SAFETY: the caller's promise; the driver copies the parameters before it returns.
        unsafe { result::launch_kernel(f, grid, block, 0, self.stream.cu_stream(), &mut places) }
            .map_err(words)
    }
}
