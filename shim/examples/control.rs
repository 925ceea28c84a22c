//! Talks to a running pod: `control <sandbox id or pod name> info|checkpoint [container]|thaw|metrics`.

use std::error::Error;
use std::time::Duration;

use cryopod_command::Limits;
use cryopod_shim::control::{api, client::Client};
use cryopod_shim::discovery;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (name, verb, rest) = match words.as_slice() {
        [name, verb, rest @ ..] => (*name, *verb, rest),
        _ => return Err("control <sandbox id or pod name> info|checkpoint [container]|thaw|metrics".into()),
    };
    let shims = discovery::list()?;
    let shim =
        shims.iter().find(|s| s.pod.name == name || s.pod.id.starts_with(name)).ok_or("no such pod")?;
    let client = Client::connect(&shim.socket)?;
    match verb {
        "info" => println!("{:#?}", client.info()?),
        "thaw" => println!("{:?}", client.thaw()?),
        "metrics" => print!("{}", client.metrics()?),
        "checkpoint" => {
            let container = rest.first().copied().unwrap_or_default().to_owned();
            let request = api::CheckpointRequest { container, ..Default::default() };
            let limits = Limits::within(Duration::from_secs(600));
            let mut last = String::new();
            let mut progress = |seen: &api::ProgressResponse| {
                if seen.phase != last {
                    eprintln!("{}", seen.phase);
                    last.clone_from(&seen.phase);
                }
            };
            let answer = client.checkpoint(&request, &mut progress, &limits)?;
            println!("{}\n{}", answer.id, String::from_utf8_lossy(&answer.timeline));
        }
        other => return Err(format!("unknown verb {other}").into()),
    }
    Ok(())
}
