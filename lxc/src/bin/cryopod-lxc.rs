//! `cryopod-lxc`: see `cryopod_lxc::command`.

fn main() -> std::process::ExitCode {
    cryopod_lxc::command::main()
}
