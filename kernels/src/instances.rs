//! Generic kernels, compiled in this crate.
//!
//! Rust compiles a generic function where it is used. These kernels are large and
//! come in three instruction sets; compiled by every crate, test and example that
//! uses them, they would take most of everybody's build. A kernel of this kind is
//! therefore reached through a method of its element type, which is an ordinary
//! function of this crate.

/// `instances!(Trait for types => { fn name(arg: Type of Self, …) = kernel; … })`
/// declares a trait with these methods and implements it for the types by calling
/// `kernel::<type>`.
macro_rules! instances {
    ($trait:ident for $($t:ty),+ => $methods:tt) => {
        $crate::instances::instances!(@trait $trait $methods);
        $($crate::instances::instances!(@impl $trait, $t, $methods);)+
    };
    (@trait $trait:ident { $(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident;)+ }) => {
        /// Kernels of this module by element type.
        #[doc(hidden)]
        #[allow(missing_docs)]
        pub trait $trait: Sized {
            $(fn $name($($arg: $ty),*) $(-> $ret)?;)+
        }
    };
    (@impl $trait:ident, $t:ty, { $(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident;)+ }) => {
        impl $trait for $t {
            $(
                #[inline(never)]
                fn $name($($arg: $ty),*) $(-> $ret)? {
                    $kernel::<$t>($($arg),*)
                }
            )+
        }
    };
}
pub(crate) use instances;
