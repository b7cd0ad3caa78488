//! Where the passphrase comes from, and where it never shows.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use crate::common::{Home, PASSPHRASE, bare, contents, run};

#[test]
fn it_comes_from_a_file_a_command_or_the_environment() {
    let home = Home::new();
    let repo = home.arg("repo");
    let file = home.arg("passphrase");
    let with = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut all = vec!["--repo", &repo];
        all.extend_from_slice(arguments);
        all.push("snapshots");
        run(bare(&all).envs(variables.iter().copied()))
    };
    with(&["--passphrase-file", &file], &[]).expect(0);
    let command = format!("cat {file}");
    with(&["--passphrase-command", &command], &[]).expect(0);
    with(&[], &[("LIFEBOAT_PASSPHRASE", PASSPHRASE)]).expect(0);
    with(&[], &[("LIFEBOAT_PASSPHRASE_COMMAND", &command)]).expect(0);
    // What is said on the command line wins.
    let other = [("LIFEBOAT_PASSPHRASE", "other")];
    with(&["--passphrase-file", &file], &other).expect(0);
    with(&[], &other).expect(1);

    let ran = with(&[], &[]).expect(2);
    ran.error_says(&[
        "--passphrase-file",
        "--passphrase-command",
        "LIFEBOAT_PASSPHRASE",
    ]);
    let ran = with(&["--passphrase-file", &home.arg("nothing")], &[]).expect(1);
    ran.error_says(&[&home.arg("nothing"), "No such file"]);
    with(&["--passphrase-command", "exit 7"], &[])
        .expect(1)
        .error_says(&["passphrase command", "7"]);
    with(&["--passphrase-command", "true"], &[])
        .expect(2)
        .error_says(&["empty"]);
}

#[test]
fn it_shows_nowhere() {
    let home = Home::new();
    let tree = home.tree();
    for arguments in [
        &[
            "backup",
            "files",
            &tree,
            "--name",
            "tree",
            "--json",
            "--verbose",
        ][..],
        &["snapshots", "--verbose"],
        &[
            "restore",
            "latest",
            "--to",
            &home.arg("out"),
            "--verbose",
            "--json",
        ],
        &["verify", "--every-byte", "--verbose"],
        &["doctor", "--verbose"],
    ] {
        let mut command = bare(arguments);
        command
            .env("LIFEBOAT_REPO", home.repo())
            .env("LIFEBOAT_PASSPHRASE", PASSPHRASE);
        let ran = run(&mut command).expect(0);
        assert!(!ran.to_string().contains(PASSPHRASE), "{ran}");
    }
    for (path, bytes) in contents(&home.repo()) {
        let found = bytes
            .windows(PASSPHRASE.len())
            .any(|part| part == PASSPHRASE.as_bytes());
        assert!(!found, "{}", path.display());
    }
    // Neither does what was backed up, other than sealed.
    for (path, bytes) in contents(&home.repo()) {
        assert!(
            !bytes.windows(8).any(|part| part == b"greeting"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn it_is_in_no_list_of_processes() {
    let home = Home::new();
    // The command for the passphrase holds the program up for as long as we look.
    let gate = home.path("gate");
    let status = std::process::Command::new("mkfifo")
        .arg(&gate)
        .status()
        .unwrap();
    assert!(status.success());
    let command = format!("cat {}", home.arg("gate"));
    let mut child = bare(&[
        "--repo",
        &home.arg("repo"),
        "--passphrase-command",
        &command,
        "snapshots",
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    // Opening a pipe for writing waits until somebody reads.
    let mut writer = fs::OpenOptions::new().write(true).open(&gate).unwrap();
    std::io::Write::write_all(&mut writer, PASSPHRASE.as_bytes()).unwrap();
    drop(writer);
    let mut looked = 0;
    while child.try_wait().unwrap().is_none() {
        let path = format!("/proc/{}/cmdline", child.id());
        if let Ok(line) = fs::read(&path) {
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(!line.contains(PASSPHRASE), "{line}");
            looked += 1;
        }
    }
    assert!(looked > 0);
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
}

#[test]
fn credentials_in_a_location_are_refused_and_not_repeated() {
    for location in [
        "s3://AKIA:hunter2@bucket/x",
        "s3://bucket/x?secret_access_key=hunter2",
        "abfss://c:hunter2@a.dfs.core.windows.net/x",
    ] {
        for json in [&["snapshots"][..], &["snapshots", "--json"]] {
            let mut arguments = vec!["--repo", location];
            arguments.extend_from_slice(json);
            let ran = run(bare(&arguments).env("LIFEBOAT_PASSPHRASE", "x")).expect(2);
            let said = format!("{}{}", ran.0.stdout, ran.0.stderr);
            assert!(!said.contains("hunter2"), "{said}");
            ran.error_says(&["environment"]);
        }
    }
}
