//! The cryopod command.
fn main() {}
