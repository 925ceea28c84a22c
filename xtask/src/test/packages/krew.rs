//! The manifest for krew, held against what krew itself demands of one, and an installation as krew does it: archive by
//! checksum, files by the list, and the program runs.

use std::fs;
use std::path::Path;

use cryopod_command::{Command, Limits};
use serde::Deserialize;

use super::Check;
use crate::cross::Build;
use crate::krew::{self, Archive, PROGRAM};
use crate::report;

/// krew's own limit is the width of a table of all plugins.
const SHORT: usize = 50;

/// What krew knows in a manifest; anything else is a mistake of ours.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    version: String,
    homepage: String,
    short_description: String,
    description: String,
    caveats: String,
    platforms: Vec<Platform>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Platform {
    selector: Selector,
    uri: String,
    sha256: String,
    bin: String,
    files: Vec<Move>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: Labels,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    os: String,
    arch: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    from: String,
    to: String,
}

/// Makes the archive of this host and looks at it.
pub(super) fn checks(build: Build, work: &Path, limits: &Limits, check: &mut Check<'_>) {
    let output = work.join("krew");
    let made = krew::make(&[build], &output).map_err(|error| report::chain(&error));
    let read = made.and_then(|(path, archives)| {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        Ok((parse(&text)?, archives))
    });
    match read {
        Err(why) => check("krew: archive and manifest", Err(why)),
        Ok((manifest, archives)) => {
            check("krew: the manifest is what krew demands", fit(&manifest, &archives));
            check(
                "krew: what its files name is in the archive, and runs",
                install(&manifest, &archives, work, limits),
            );
        }
    }
}

fn parse(text: &str) -> Result<Manifest, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

fn fit(manifest: &Manifest, archives: &[Archive]) -> Result<(), String> {
    let (spec, mut wrong) = (&manifest.spec, Vec::new());
    let mut demand = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    demand(
        manifest.api_version == "krew.googlecontainertools.github.com/v1alpha2",
        manifest.api_version.clone(),
    );
    demand(manifest.kind == "Plugin", format!("kind {}", manifest.kind));
    demand(
        PROGRAM == format!("kubectl-{}", manifest.metadata.name),
        format!("name {}", manifest.metadata.name),
    );
    demand(spec.version == format!("v{}", env!("CARGO_PKG_VERSION")), format!("version {}", spec.version));
    demand(spec.homepage.starts_with("https://"), format!("homepage {}", spec.homepage));
    let short = &spec.short_description;
    demand(
        !short.is_empty() && short.len() <= SHORT && !short.contains('\n'),
        format!("shortDescription {short:?}"),
    );
    demand(
        !spec.description.trim().is_empty() && !spec.caveats.trim().is_empty(),
        "description or caveats".into(),
    );
    demand(
        !archives.is_empty() && spec.platforms.len() == archives.len(),
        "a platform for each archive".into(),
    );
    for (platform, archive) in spec.platforms.iter().zip(archives) {
        let name = archive.path.file_name().unwrap_or_default().to_string_lossy();
        let labels = &platform.selector.match_labels;
        let (os, arch) = (&labels.os, &labels.arch);
        demand(
            name.ends_with(&format!("_{os}_{arch}.tar.gz")),
            format!("{os} {arch} has the archive {name}"),
        );
        let there = platform.uri.starts_with("https://")
            && platform.uri.ends_with(&format!("/{}/{name}", spec.version));
        demand(there, format!("uri {}", platform.uri));
        demand(platform.sha256 == archive.sha256 && archive.sha256.len() == 64, format!("sha256 of {name}"));
        // krew refuses paths that lead out of the plugin's folder.
        let inside = |path: &str| !path.starts_with('/') && !path.split('/').any(|part| part == "..");
        let moves = platform.files.iter().all(|it| inside(&it.from) && inside(&it.to));
        demand(moves && inside(&platform.bin), format!("paths of {name}"));
        demand(platform.files.iter().any(|it| it.from == "LICENSE"), format!("no LICENSE in {name}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn install(manifest: &Manifest, archives: &[Archive], work: &Path, limits: &Limits) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    for (platform, archive) in manifest.spec.platforms.iter().zip(archives) {
        let (unpacked, plugin) = (work.join("krew-unpacked"), work.join("krew-plugin"));
        for folder in [&unpacked, &plugin] {
            fs::create_dir_all(folder).map_err(said)?;
        }
        let unpack = Command::new("tar").arg("-xf").arg(&archive.path).arg("-C").arg(&unpacked);
        unpack.run(limits).map_err(|error| error.to_string())?;
        for file in &platform.files {
            let to = plugin.join(&file.to).join(&file.from);
            fs::copy(unpacked.join(&file.from), &to).map_err(|error| format!("{}: {error}", file.from))?;
        }
        let run = Command::new(plugin.join(&platform.bin)).arg("--help").run(limits);
        let output = run.map_err(|error| error.to_string())?;
        if !String::from_utf8_lossy(&output.stdout).contains("checkpoint") {
            return Err(format!("{} --help says nothing of checkpoints", platform.bin));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_manifest_but_for_what_is_filled_in() {
        let template =
            fs::read_to_string(crate::repository::root().join("deploy/krew/cryopod.yaml")).unwrap();
        let manifest = parse(&template).unwrap();
        let platforms: Vec<&str> =
            manifest.spec.platforms.iter().map(|it| it.selector.match_labels.arch.as_str()).collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
        let wrong = fit(&manifest, &[]).unwrap_err();
        assert!(
            wrong.contains("version v@VERSION@") && wrong.contains("a platform for each archive"),
            "{wrong}"
        );
        assert!(!wrong.contains("shortDescription") && !wrong.contains("name"), "{wrong}");
        assert!(parse(&format!("{template}\nunknown: 1\n")).is_err());
    }
}
