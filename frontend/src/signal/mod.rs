//! Signals, by the names of `torch.signal`.

pub mod windows;
