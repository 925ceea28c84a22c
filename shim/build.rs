//! Generates messages and service stubs from `proto/`, with the generator that containerd-shim-protos uses, and says how
//! the shim is linked.

use std::path::PathBuf;
use std::{env, fs};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?).join("proto");
    fs::create_dir_all(&out)?;
    println!("cargo:rerun-if-changed=proto");
    // A program at a fixed address needs no relocations at its start. They dirty pages, in the shim and in the process
    // that holds the pod's namespaces (docs/adr/0007). Go's programs are linked so as well.
    println!("cargo:rustc-link-arg-bins=-no-pie");
    Codegen::new()
        .inputs(["proto/control.proto", "proto/cri.proto"])
        .include("proto")
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().generate_accessors(false))
        .customize(Customize { async_all: true, ..Customize::default() })
        .out_dir(&out)
        .run()?;
    // `include!` takes no inner attributes and no inner docs.
    for entry in fs::read_dir(&out)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let kept: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("#!") && !line.starts_with("//!")).collect();
        fs::write(&path, kept.join("\n"))?;
    }
    Ok(())
}
