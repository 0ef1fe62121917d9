//! Kernels that stand on other libraries: factorisations of matrices by `faer`,
//! Fourier transforms by `rustfft`.
//!
//! They form a crate of their own because they compile slowly and change seldom, and
//! because programs that only run artifacts do not link them.
