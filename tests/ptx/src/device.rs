//! The machine as a device.

use crate::{Function, Memory, launch, read};
use sinter_runtime::cuda::{DeviceInfo, Driver, Entry};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A device that is simulated: [`sinter_runtime::cuda::simulate`] has arrays lie on it.
/// Every kernel runs at once; the order of threads is another one from launch to launch.
/// Fresh memory holds numbers that nobody expects.
pub struct SimulatedDevice {
    inner: Arc<Inner>,
}

struct Inner {
    memory: Mutex<Memory>,
    limit: usize,
    capability: (u32, u32),
    launches: AtomicUsize,
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl SimulatedDevice {
    /// One with so many bytes of memory.
    pub fn new(limit: usize) -> SimulatedDevice {
        let (memory, launches) = (Mutex::default(), AtomicUsize::new(0));
        SimulatedDevice { inner: Arc::new(Inner { memory, limit, capability: (8, 0), launches }) }
    }
}

impl Driver for SimulatedDevice {
    fn info(&self) -> Result<DeviceInfo, String> {
        Ok(DeviceInfo {
            name: "simulated device".to_string(),
            memory: self.inner.limit,
            compute_capability: self.inner.capability,
        })
    }

    fn allocate(&self, len: usize) -> Result<Option<u64>, String> {
        let mut memory = self.inner.memory();
        let room = self.inner.limit - memory.in_use();
        Ok((len <= room).then(|| memory.add(vec![0xaa; len])))
    }

    unsafe fn free(&self, address: u64) -> Result<(), String> {
        self.inner.memory().remove(address)
    }

    unsafe fn upload(&self, bytes: &[u8], to: u64) -> Result<(), String> {
        self.inner.memory().place(to, bytes.len(), 1)?.copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), String> {
        bytes.copy_from_slice(self.inner.memory().place(from, bytes.len(), 1)?);
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, len: usize) -> Result<(), String> {
        let mut memory = self.inner.memory();
        let bytes = memory.place(from, len, 1)?.to_vec();
        memory.place(to, len, 1)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn load(&self, ptx: &str, entry: &str) -> Result<Box<dyn Entry>, String> {
        let function = read(ptx)?;
        if function.name != entry {
            return Err(format!("the kernel is called {}, not {entry}", function.name));
        }
        Ok(Box::new(Loaded { function, on: self.inner.clone() }))
    }

    fn synchronize(&self) -> Result<(), String> {
        Ok(())
    }
}

struct Loaded {
    function: Function,
    on: Arc<Inner>,
}

impl Entry for Loaded {
    unsafe fn launch(&self, blocks: u32, threads: u32, params: &[u64]) -> Result<(), String> {
        let reverse = self.on.launches.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        launch(&self.function, &mut self.on.memory(), blocks, threads, params, reverse)
    }
}
