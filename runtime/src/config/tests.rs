use std::path::Path;

use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("conf.d")).expect("conf.d");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("file");
    }
    dir
}

fn load(files: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = directory(files);
    Config::load(&Sources { directory: Some(dir.path().to_owned()), ..Sources::default() })
}

#[test]
fn without_any_file_crun_is_the_default_and_the_store_is_found_out() {
    let config = Config::load(&Sources { directory: Some("/nonexistent".into()), ..Sources::default() })
        .expect("defaults");
    assert_eq!(config.runtime.default, "crun");
    assert!(config.runtime("runc").is_some());
    assert_eq!(config.store.kind, StoreKind::Auto);
    assert_eq!(config.volumes.other, VolumePolicy::Refuse);
}

#[test]
fn later_drop_ins_win_key_by_key() {
    let config = load(&[
        ("config.toml", "[checkpoint]\ntcp = \"close\"\nghost_limit = \"1MiB\"\n"),
        ("conf.d/20-b.toml", "[checkpoint]\nghost_limit = \"3MiB\"\n"),
        ("conf.d/10-a.toml", "[checkpoint]\nghost_limit = \"2MiB\"\n"),
        ("conf.d/30-c.txt", "not toml at all"),
    ])
    .expect("valid");
    assert_eq!(config.checkpoint.ghost_limit, Bytes(3 << 20));
    assert_eq!(config.checkpoint.tcp, TcpPolicy::Close);
}

#[test]
fn a_misspelt_key_is_an_error_with_file_line_and_column() {
    let error = load(&[("conf.d/10-a.toml", "# comment\n[store]\n  knid = \"zfs\"\n")]).expect_err("typo");
    let text = error.to_string();
    assert!(
        text.contains("conf.d/10-a.toml:3:3: unknown key 'store.knid', did you mean 'store.kind'?"),
        "{text}"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_an_error_with_its_place() {
    let error = load(&[("config.toml", "[store]\nkind = \"zsf\"\n")]).expect_err("no such store");
    assert!(error.to_string().contains("config.toml:2:8: "), "{error}");
    let error = load(&[("config.toml", "[checkpoint]\ntimeout = \"soon\"\n")]).expect_err("no duration");
    assert!(error.to_string().contains("config.toml:2:11: 'soon' is not a duration"), "{error}");
}

#[test]
fn broken_toml_names_its_place() {
    let error = load(&[("config.toml", "[store\n")]).expect_err("broken");
    assert!(error.to_string().contains("config.toml:1:"), "{error}");
}

#[test]
fn a_default_runtime_that_does_not_exist_is_refused() {
    let error = load(&[("config.toml", "[runtime]\ndefault = \"kata\"\n")]).expect_err("no such runtime");
    assert!(error.to_string().contains("configured: crun, runc"), "{error}");
}

#[test]
fn any_runtime_can_be_configured() {
    let config = load(&[(
        "config.toml",
        "[runtime]\ndefault = \"youki\"\n[runtime.youki]\npath = \"/opt/youki\"\nsystemd_cgroup = true\n",
    )])
    .expect("valid");
    let youki = config.runtime("youki").expect("configured");
    assert_eq!(youki.path.as_deref(), Some(Path::new("/opt/youki")));
    assert!(youki.systemd_cgroup);
}

#[test]
fn the_body_of_runtime_options_lies_over_the_files() {
    let dir = directory(&[("config.toml", "[runtime]\ndefault = \"runc\"\n")]);
    let sources = Sources {
        directory: Some(dir.path().to_owned()),
        body: Some("[log]\nlevel = \"debug\"\n".into()),
        ..Sources::default()
    };
    let config = Config::load(&sources).expect("valid");
    assert_eq!((config.runtime.default.as_str(), config.log.level), ("runc", Level::Debug));
}

#[test]
fn a_file_named_by_runtime_options_must_exist() {
    let sources = Sources { file: Some("/nonexistent/file.toml".into()), ..Sources::default() };
    assert!(matches!(Config::load(&sources), Err(ConfigError::Read { .. })));
}

#[test]
fn the_dump_reads_back_as_the_same_and_has_only_known_keys() {
    let config = load(&[(
        "config.toml",
        "[store.zfs]\nroot = \"rpool/cryopod\"\n[runtime.crun]\npath = \"/usr/bin/crun\"\nroot = \"/run/x\"\nextra_args = [\"--debug\"]\n",
    )])
    .expect("valid");
    let text = config.dump().expect("TOML");
    let again = Config::from_table(parse("dump", &text).expect("only known keys")).expect("valid");
    assert_eq!(again, config);
}
