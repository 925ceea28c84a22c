//! What a snapshot of two datasets costs by the command and by libzfs_core: `snapshot_cost ROOT [ROUNDS]`.
//!
//! The freeze window of a checkpoint contains exactly this call, so docs/adr/0001-zfs-access.md stands on it.
//! Both ways are taken in turn, so that the load of the machine falls on both; medians are printed.

use std::time::{Duration, Instant};

use cryopod_zfs::{CreateRequest, DatasetName, Limits, Properties, Zfs, open, open_cli};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let root: DatasetName = args.next().ok_or("usage: snapshot_cost ROOT [ROUNDS]")?.parse()?;
    let rounds: usize = args.next().map_or(Ok(15), |text| text.parse())?;
    let limits = Limits::within(Duration::from_secs(600));
    let (cli, library) = (open_cli(&limits)?, open(&limits)?);
    let datasets = [root.child("a")?, root.child("b")?];
    for dataset in &datasets {
        cli.create(&CreateRequest::filesystem(dataset, Properties::new()).with_parents(), &limits)?;
    }
    let ways: [(&str, &dyn Zfs); 2] = [("cli", &cli), (library.backend(), library.as_ref())];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for ((name, zfs), times) in ways.iter().zip(&mut times) {
            let leaf = format!("{name}-{round}");
            let set = [datasets[0].snapshot(&leaf)?, datasets[1].snapshot(&leaf)?];
            let marks = Properties::new().with("cryopod:checkpoint", leaf);
            let started = Instant::now();
            zfs.snapshot_set(&set, &marks, &limits)?;
            times.push(started.elapsed());
        }
    }
    for ((name, _), times) in ways.iter().zip(&mut times) {
        times.sort();
        let at = |part: usize| {
            times.get(times.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1000.0
        };
        println!("{name}: median {:.1} ms, p10 {:.1} ms, p90 {:.1} ms", at(50), at(10), at(90));
    }
    cli.destroy(&root, true, &limits)?;
    Ok(())
}
