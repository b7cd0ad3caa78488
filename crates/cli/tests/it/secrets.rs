//! Where the passphrase comes from, and where it never shows.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

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
    with(&[], &[("LIFEBOAT_PASSPHRASE_FILE", &file)]).expect(0);
    // What is said on the command line wins.
    let files = [("LIFEBOAT_PASSPHRASE_FILE", "/nothing"), ("LIFEBOAT_PASSPHRASE", "other")];
    with(&["--passphrase-command", &command], &files).expect(0);
    let other = [("LIFEBOAT_PASSPHRASE", "other")];
    with(&["--passphrase-file", &file], &other).expect(0);
    with(&[], &other).expect(1);

    let ran = with(&[], &[]).expect(2);
    ran.error_says(&["--passphrase-file", "--passphrase-command", "LIFEBOAT_PASSPHRASE"]);
    let ran = with(&["--passphrase-file", &home.arg("nothing")], &[]).expect(1);
    ran.error_says(&[&home.arg("nothing"), "No such file"]);
    with(&["--passphrase-command", "exit 7"], &[])
        .expect(1)
        .error_says(&["passphrase command", "7"]);
    with(&["--passphrase-command", "true"], &[]).expect(2).error_says(&["empty"]);
}

#[test]
fn it_shows_nowhere() {
    let home = Home::new();
    let tree = home.tree();
    for arguments in [
        &["backup", "files", &tree, "--name", "tree", "--json", "--verbose"][..],
        &["snapshots", "--verbose"],
        &["restore", "latest", "--to", &home.arg("out"), "--verbose", "--json"],
        &["verify", "--every-byte", "--verbose"],
        &["doctor", "--verbose"],
    ] {
        let mut command = bare(arguments);
        command.env("LIFEBOAT_REPO", home.repo()).env("LIFEBOAT_PASSPHRASE", PASSPHRASE);
        let ran = run(&mut command).expect(0);
        assert!(!ran.to_string().contains(PASSPHRASE), "{ran}");
    }
    for (path, bytes) in contents(&home.repo()) {
        let found = bytes.windows(PASSPHRASE.len()).any(|part| part == PASSPHRASE.as_bytes());
        assert!(!found, "{}", path.display());
    }
    // Neither does what was backed up, other than sealed.
    for (path, bytes) in contents(&home.repo()) {
        assert!(!bytes.windows(8).any(|part| part == b"greeting"), "{}", path.display());
    }
}

#[test]
fn it_is_in_no_list_of_processes() {
    let home = Home::new();
    // The command for the passphrase holds the program up for as long as we look.
    let gate = home.path("gate");
    let status = Command::new("mkfifo").arg(&gate).status().unwrap();
    assert!(status.success());
    let command = format!("cat {}", home.arg("gate"));
    let mut child =
        bare(&["--repo", &home.arg("repo"), "--passphrase-command", &command, "snapshots"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    // Opening a pipe for writing waits until somebody reads.
    let mut writer = fs::OpenOptions::new().write(true).open(&gate).unwrap();
    writer.write_all(PASSPHRASE.as_bytes()).unwrap();
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
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
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

/// Runs the program on a terminal of its own, and types each answer when it is asked for.
fn on_a_terminal(home: &Home, arguments: &str, answers: &[&str]) -> (i32, String) {
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_lifeboat"));
    let mut child = Command::new("script")
        .args(["-qefc", &line, "/dev/null"])
        .env_remove("LIFEBOAT_PASSPHRASE")
        .env("LIFEBOAT_REPO", home.repo())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program script, of util-linux");
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut shown = Vec::new();
    let mut byte = [0];
    let mut answers = answers.iter();
    while stdout.read(&mut byte).unwrap_or(0) > 0 {
        shown.push(byte[0]);
        if (shown.ends_with(b"passphrase: ") || shown.ends_with(b"again: "))
            && let Some(answer) = answers.next()
        {
            stdin.write_all(answer.as_bytes()).unwrap();
        }
    }
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_person_is_asked_and_what_is_typed_does_not_show() {
    let home = Home::empty();
    let (right, wrong) = (format!("{PASSPHRASE}\n"), "mistyped\n");
    let (code, shown) = on_a_terminal(&home, "init", &[&right, wrong]);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("not the same"), "{shown}");
    assert!(!home.repo().exists());
    let (code, shown) = on_a_terminal(&home, "init", &[&right, &right]);
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains(PASSPHRASE), "{shown}");
    home.run(&["snapshots"]).expect(0);
    let (code, shown) = on_a_terminal(&home, "snapshots", &[&right]);
    assert!(code == 0 && !shown.contains(PASSPHRASE), "{shown}");
    // Ctrl-C at the prompt.
    let (code, shown) = on_a_terminal(&home, "snapshots", &["\x03"]);
    assert_eq!(code, 130, "{shown}");
}
