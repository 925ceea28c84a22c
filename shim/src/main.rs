//! `containerd-shim-cryopod-v2`: started by containerd, never by people; see the crate's documentation.

fn main() -> std::process::ExitCode {
    cryopod_shim::entry::main()
}
