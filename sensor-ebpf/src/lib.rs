//! The record ABI between the kernel programs and user space (being written).
#![no_std]
