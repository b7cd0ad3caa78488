//! The `lifeboat` command: parse, call, render; nothing else.
//!
//! What is done, the library crates do. Here are the words of the command line
//! ([`args`]), where secrets come from ([`secret`]), what is shown to people and to programs
//! ([`output`]), one file for each verb ([`commands`]), and the exit code:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | all of it worked |
//! | 1 | it failed, or damage was found; the last line says what to do |
//! | 2 | the command line makes no sense |
//! | 3 | it worked, and something in it needs attention |
//! | 130 | stopped by SIGINT or SIGTERM |
//!
//! What PostgreSQL runs has tables of its own: see [`exit`].

mod args;
mod commands;
mod exit;
mod failure;
mod metrics;
mod output;
mod secret;
mod service;
mod session;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use lifeboat_core::Error;

use crate::args::Arguments;
use crate::exit::{Exit, Table};
use crate::failure::Failed;
use crate::output::Output;
use crate::session::Session;

fn main() -> ExitCode {
    Table::of(std::env::args_os()).choose();
    // TLS wants its cryptography named before the first connection. It is there already only when
    // somebody else named it, and then all is well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return output::usage(&error).into(),
    };
    let output = Output::new(&arguments.global);
    output.started(arguments.command.name());
    if let Some(answered) = service::ask(&arguments.command, &arguments.global, &output) {
        return ended(answered, &output);
    }
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::from(Error::io("start the runtime", error)))
        .and_then(|runtime| {
            let outcome = runtime.block_on(Box::pin(run(arguments, output.clone())));
            // Work that blocks and cannot be stopped must not keep a cancelled command.
            runtime.shutdown_background();
            outcome
        });
    ended(outcome, &output)
}

fn ended(outcome: Result<Exit, Failed>, output: &Output) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failed) => output.failed(&failed).into(),
    }
}

async fn run(arguments: Arguments, output: Output) -> Result<Exit, Failed> {
    let session = Session::new(arguments.global, output);
    signals::watch(session.context.clone(), session.output.clone())
        .map_err(|error| Error::io("listen for signals", error))?;
    commands::run(arguments.command, &session).await
}
