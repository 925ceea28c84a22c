//! containerd-shim-cryopod-v2.
fn main() {}
