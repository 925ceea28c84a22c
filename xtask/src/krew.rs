//! `cargo xtask krew`: the archives of the kubectl plugin for krew, and the manifest that names them with their checksums, from
//! the template `deploy/krew/cryopod.yaml`.
//!
//! ```text
//! kubectl-cryopod_v0.1.0_linux_amd64.tar.gz     kubectl-cryopod, LICENSE
//! cryopod.yaml                                  the plugin's name, as krew demands it of the file
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use cryopod_command::{Command, Limits};
use sha2::{Digest, Sha256};

use crate::cross::{self, Architecture, Build};
use crate::deploy::Profile;
use crate::progress::Step;
use crate::{deb, repository};

/// The plugin's program.
pub(crate) const PROGRAM: &str = "kubectl-cryopod";
const TEMPLATE: &str = "deploy/krew/cryopod.yaml";
const PLATFORM: &str = "    # platform ";
const END: &str = "    # end\n";

/// Which archives to make.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where archives and manifest go.
    #[arg(long, default_value = "target/krew", value_name = "DIR")]
    output: PathBuf,
    /// Build quickly, as for the tests: larger programs.
    #[arg(long)]
    release: bool,
    /// For which processors, several with commas; without it, this host's.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ARCH")]
    arch: Vec<Architecture>,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Build(#[from] cross::Error),
    #[error(transparent)]
    Command(#[from] cryopod_command::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{TEMPLATE}: {0}")]
    Template(String),
}

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    architecture: Architecture,
    pub(crate) path: PathBuf,
    pub(crate) sha256: String,
}

impl Archive {
    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The verb.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let profile = if options.release { Profile::Release } else { Profile::Dist };
    let host = Build::host(profile)?;
    let wanted = if options.arch.is_empty() { vec![host.architecture] } else { options.arch.clone() };
    let builds: Vec<Build> = wanted.iter().map(|it| Build { architecture: *it, ..host }).collect();
    for build in &builds {
        let step = Step::begin(format!("building {PROGRAM} for {}", build.architecture.debian()), None);
        build.run(&[("cryopod-kubectl", false)])?;
        step.done();
    }
    let (manifest, archives) = make(&builds, &options.output)?;
    archives.iter().for_each(|archive| println!("{}", archive.path.display()));
    println!("{}", manifest.display());
    Ok(())
}

/// Packs the built programs and writes the manifest.
pub(crate) fn make(builds: &[Build], output: &Path) -> Result<(PathBuf, Vec<Archive>), Error> {
    fs::create_dir_all(output).map_err(at(output))?;
    let archives: Vec<Archive> = builds.iter().map(|build| pack(*build, output)).collect::<Result<_, _>>()?;
    let template = repository::root().join(TEMPLATE);
    let template = fs::read_to_string(&template).map_err(at(&template))?;
    let manifest = output.join("cryopod.yaml");
    let text = fill(&template, env!("CARGO_PKG_VERSION"), &archives).map_err(Error::Template)?;
    fs::write(&manifest, text).map_err(at(&manifest))?;
    Ok((manifest, archives))
}

/// The same program makes the same archive: names sorted, nobody's ids, the commit's time.
fn pack(build: Build, output: &Path) -> Result<Archive, Error> {
    let stage = output.join(format!(".{}", build.architecture.debian()));
    fs::create_dir_all(&stage).map_err(at(&stage))?;
    let (built, program) = (build.file(PROGRAM, false), stage.join(PROGRAM));
    fs::copy(&built, &program).map_err(at(&built))?;
    let license = repository::root().join("LICENSE");
    fs::copy(&license, stage.join("LICENSE")).map_err(at(&license))?;
    Command::new(build.strip()).arg("--strip-unneeded").arg(&program).run(&Limits::none())?;
    let name =
        format!("{PROGRAM}_v{}_linux_{}.tar.gz", env!("CARGO_PKG_VERSION"), build.architecture.debian());
    let path = output.join(name);
    let time = format!("--mtime=@{}", deb::epoch());
    let tar = Command::new("tar").args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=u=rwX,go=rX",
    ]);
    let tar =
        tar.args([time.as_str(), "--use-compress-program=gzip -9n", "-C"]).arg(&stage).arg("-cf").arg(&path);
    tar.args([PROGRAM, "LICENSE"]).run(&Limits::none())?;
    fs::remove_dir_all(&stage).map_err(at(&stage))?;
    let sha256 = sha256(&path)?;
    Ok(Archive { architecture: build.architecture, path, sha256 })
}

fn sha256(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(at(path))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The template with version and checksums, of the platforms that there is an archive of.
fn fill(template: &str, version: &str, archives: &[Archive]) -> Result<String, String> {
    let (head, rest) = template.split_once(PLATFORM).ok_or("no line `# platform`")?;
    let blocks = rest.strip_suffix(END).ok_or("the last line is not `# end`")?;
    // What the first lines say is about the template.
    let head = head.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n"));
    let mut text: String = head.collect();
    let mut left: Vec<&Archive> = archives.iter().collect();
    for block in blocks.split(PLATFORM) {
        let (architecture, block) = block.split_once('\n').ok_or("a platform without a block")?;
        let found = left.iter().position(|archive| archive.architecture.debian() == architecture.trim());
        if let Some(archive) = found.map(|at| left.remove(at)) {
            text.push_str(&block.replace("@ARCHIVE@", &archive.name()).replace("@SHA256@", &archive.sha256));
        }
    }
    if let Some(archive) = left.first() {
        return Err(format!("no platform {}", archive.architecture.debian()));
    }
    Ok(text.replace("@VERSION@", version))
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_without_an_archive_are_left_out() {
        let template = "# about\na: v@VERSION@\np:\n    # platform amd64\n    - @ARCHIVE@ @SHA256@ 1\n    # platform arm64\n    - @ARCHIVE@ 2\n    # end\n";
        let archive = |architecture: Architecture| Archive {
            architecture,
            path: PathBuf::from(format!("/out/x_{}.tar.gz", architecture.debian())),
            sha256: "ab".into(),
        };
        let amd64 = archive(Architecture::Amd64);
        let both = [amd64.clone(), archive(Architecture::Arm64)];
        assert_eq!(fill(template, "1.2", &[amd64]).unwrap(), "a: v1.2\np:\n    - x_amd64.tar.gz ab 1\n");
        assert!(
            fill(template, "1.2", &both)
                .unwrap()
                .ends_with("    - x_amd64.tar.gz ab 1\n    - x_arm64.tar.gz 2\n")
        );
        assert!(fill("a: 1\n", "1.2", &both).is_err());
        let only_one = "p:\n    # platform amd64\n    - x\n    # end\n";
        assert_eq!(fill(only_one, "1.2", &both), Err("no platform arm64".into()));
    }
}
