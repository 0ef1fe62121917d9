//! Which machine times were taken on.

use sinter_kernels::isa;

/// The processor, its caches and how many of it there are, and the kernels it ran:
/// times of another machine or other kernels mean nothing here.
pub fn machine() -> String {
    let cpu = cpu_model().unwrap_or_else(|| "unknown processor".to_string());
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    format!(
        "{cpu}, {}, {processors} processors, {}, caches {}, kernels {}, compiler {}",
        std::env::consts::ARCH,
        isa::detect().name(),
        caches(),
        sinter_kernels::SOURCES,
        env!("CARGO_PKG_VERSION"),
    )
}

fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = info.lines().find(|l| l.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let stepping = field("stepping").unwrap_or_default();
    Some(format!("{} stepping {stepping}", field("model name")?))
}

/// Sizes of the caches of the first processor, as the system names them.
fn caches() -> String {
    let size = |i: usize| {
        let at = format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size");
        Some(std::fs::read_to_string(at).ok()?.trim().to_string())
    };
    let sizes: Vec<String> = (0..8).map_while(size).collect();
    if sizes.is_empty() { "unknown".to_string() } else { sizes.join(" ") }
}
