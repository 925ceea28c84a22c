//! `cargo xtask deb`: the Debian packages, from the recipes in `deploy/deb`.
//!
//! A recipe is a folder with `control`, `install` (a line per file: source, destination, mode) and maintainer scripts; `dpkg-deb`
//! makes the package. What a line's source may be: `@NAME` a built program, `-TARGET` with the mode `link` a link, else a file
//! of the repository; the mode `gzip` compresses.

mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::cross::{self, Architecture, Build};
use crate::deploy::Profile;
use crate::progress::Step;
use crate::{process, programs, repository};

/// Which packages to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the packages go.
    #[arg(long, default_value = "target/deb", value_name = "DIR")]
    output: PathBuf,
    /// Build quickly, as for the tests: larger programs.
    #[arg(long)]
    release: bool,
    /// Build as `cargo test` does: largest and slowest programs, to try a recipe.
    #[arg(long, conflicts_with = "release")]
    debug: bool,
    /// For which processors; without it, this host's.
    #[arg(long, value_enum, value_name = "ARCH")]
    arch: Option<Architecture>,
}

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Build(#[from] cross::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Command(#[from] cryopod_command::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{recipe}: line {line}: {why}")]
    Recipe { recipe: PathBuf, line: usize, why: String },
    #[error("no place for logs: {0}")]
    Cache(#[from] crate::cache::NoPlace),
}

/// The recipes, each with the program without which it is left out.
const PACKAGES: &[(&str, &str)] =
    &[("cryopod", "cryopod"), ("cryopod-agent", "cryopod-agent"), ("kubectl-cryopod", "kubectl-cryopod")];

/// Debian's revision: raised when a recipe changes and the version does not.
const REVISION: u32 = 1;

/// The verb.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let profile = match (options.release, options.debug) {
        (true, _) => Profile::Release,
        (_, true) => Profile::Debug,
        _ => Profile::Dist,
    };
    let mut build = Build::host(profile)?;
    build.architecture = options.arch.unwrap_or(build.architecture);
    for package in self::build(build, &options.output, REVISION)? {
        println!("{}", package.display());
    }
    Ok(())
}

/// Builds programs and packages into `output`; the files, in the order of the recipes.
pub(crate) fn build(build: Build, output: &Path, revision: u32) -> Result<Vec<PathBuf>, Error> {
    let step = Step::begin("building the programs of the packages", None);
    programs::build(build)?;
    // What programs say of themselves, those of another processor cannot say here.
    let speaker = Build::host(build.profile)?;
    if speaker != build {
        speaker.run(&[("cryopod-cli", false)])?;
    }
    step.done();
    fs::create_dir_all(output).map_err(at(output))?;
    let version = format!("{}-{revision}", env!("CARGO_PKG_VERSION"));
    let mut packages = Vec::new();
    for (name, program) in PACKAGES {
        if programs::file(build, program).is_none() {
            crate::progress::say(&format!("{name}: left out, its program is not in this checkout"));
            continue;
        }
        packages.push(package(name, build, output, &version)?);
    }
    Ok(packages)
}

fn package(name: &str, build: Build, output: &Path, version: &str) -> Result<PathBuf, Error> {
    let log = Cache::from_env()?.root().join("log/deb.log");
    let step = Step::begin(format!("packing {name} {version}"), None);
    let staging = output.join(format!(".{name}"));
    remove(&staging)?;
    let recipe = repository::root().join("deploy/deb").join(name);
    let root = staging.join("root");
    tree::fill(&recipe, &root, build)?;
    tree::documents(name, version, &root)?;
    if name == "cryopod" {
        tree::manual(&speaking(build)?, &root)?;
    }
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control).map_err(at(&control))?;
    let depends = tree::shared_libraries(&staging, &root, build.architecture)?;
    let text = read(&recipe.join("control"))?
        .replace("@VERSION@", version)
        .replace("@ARCH@", build.architecture.debian())
        .replace("@SIZE@", &tree::kibibytes(&root)?.to_string())
        .replace("@SHLIBS@", &depends);
    write(&control.join("control"), &text, 0o644)?;
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        let source = recipe.join(script);
        if source.exists() {
            write(&control.join(script), &read(&source)?, 0o755)?;
        }
    }
    let files = tree::files(&root)?;
    let configuration: String =
        files.iter().filter(|path| path.starts_with("etc/")).map(|path| format!("/{path}\n")).collect();
    if !configuration.is_empty() {
        write(&control.join("conffiles"), &configuration, 0o644)?;
    }
    write(&control.join("md5sums"), &tree::checksums(&root, &files)?, 0o644)?;
    let file = output.join(format!("{name}_{version}_{}.deb", build.architecture.debian()));
    let mut command = Command::new("dpkg-deb");
    // What is only tested is not worth minutes of compression.
    let compression = if build.profile == Profile::Dist { ["-Zxz", "-z6"] } else { ["-Zgzip", "-z1"] };
    command.arg("--root-owner-group").args(compression).arg("--build").arg(&root).arg(&file);
    command.env("SOURCE_DATE_EPOCH", tree::epoch().to_string());
    process::logged(command, &step, &format!("packing {name}"), &log)?;
    remove(&staging)?;
    step.done();
    Ok(file)
}

/// The `cryopod` of this host, which prints the manual.
fn speaking(build: Build) -> Result<PathBuf, Error> {
    Ok(Build::host(build.profile)?.file("cryopod", false))
}

/// When the checkout was committed, so that the same checkout makes the same files.
pub(crate) fn epoch() -> u64 {
    tree::epoch()
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(at(path))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).map_err(at(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at(path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}
