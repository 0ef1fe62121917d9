//! Code generators: kernels and the program's entry, for each kind of device.

pub mod cpu;
mod micro;
