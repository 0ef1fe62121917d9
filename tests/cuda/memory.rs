//! Memory of a device: how much is in use, and what happens when it runs out. On a device
//! of its own: others would be counted, too.

use super::{caught, sources};
use sinter::{Device, TensorOptions};
use sinter_ptx::SimulatedDevice;
use sinter_runtime::cuda;
use std::sync::Arc;

const MIB: usize = 1 << 20;

#[test]
fn memory_is_kept_counted_and_runs_out() {
    sources();
    cuda::simulate(1, Arc::new(SimulatedDevice::new(64 * MIB))).unwrap();
    let on = Device::cuda(1).unwrap();
    let stats = || cuda::memory_stats(1).unwrap();
    let bytes = |n: usize| TensorOptions::new().device(on).dtype(sinter::DType::U8).empty([n]);
    let x = bytes(1000);
    assert_eq!((stats().allocated, stats().reserved), (1024, 2 * MIB));
    let y = x.narrow(0, 1, 10);
    drop(x);
    assert_eq!(stats().allocated, 1024, "a view keeps the memory");
    drop(y);
    assert_eq!((stats().allocated, stats().reserved), (0, 2 * MIB));
    assert_eq!(stats().max_allocated, 1024);
    cuda::empty_cache(1).unwrap();
    assert_eq!(stats().reserved, 0);

    drop(bytes(40 * MIB));
    let large = bytes(60 * MIB);
    assert_eq!((stats().retries, stats().reserved), (1, 60 * MIB));
    let e = caught(|| bytes(5 * MIB)).unwrap_err();
    assert!(
        e.contains("cuda:1: out of memory: 5242880 bytes requested")
            && e.contains("62914560 bytes are in arrays"),
        "{e}"
    );
    drop(large);
    assert_eq!(bytes(5 * MIB).numel(), 5 * MIB);
    cuda::reset_peak_memory_stats(1).unwrap();
    assert_eq!(stats().max_allocated, 0);
    cuda::set_blocking(1, true).unwrap();
    cuda::synchronize(1).unwrap();
    let e = caught(|| cuda::simulate(1, Arc::new(SimulatedDevice::new(1)))).unwrap_err();
    assert!(e.contains("cuda:1 is in use"), "{e}");
}
