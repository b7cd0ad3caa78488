//! A service that backs up one database table by table, brings it back under another name, and writes
//! one table as CSV.
//!
//! Runs anywhere that reaches the server; `pg_dump` of its major version or newer must be there.
//!
//! ```text
//! cargo run --example embed_dump "host=db user=backup dbname=shop" public.orders
//! ```
//!
//! The repository and the CSV are made in a temporary directory, and removed; the database stays.

use std::path::Path;

use lifeboat::core::EntryPath;
use lifeboat::postgres::{
    ConnectOptions, DatabaseOptions, DatabaseRestoreOptions, DatabaseSink, DatabaseSource,
    ExportForm, ExportOptions, ExportSink, TableName,
};
use lifeboat::{
    Context, InitOptions, Intent, Location, Repository, Result, Secret, Selection, StoreOptions,
    TransferOptions, WriteOptions, open, transfer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let conninfo = arguments.next().ok_or("say how to connect, as for psql")?;
    let table = TableName::parse(&arguments.next().ok_or("name a table")?)?;
    let folder = tempfile::tempdir()?;
    let options = DatabaseOptions::new(ConnectOptions::parse(&conninfo)?.with_environment()?);
    println!("{}", run(options, &table, folder.path()).await?);
    Ok(())
}

/// All that the example does: the database of the options, and what is made beneath `folder`. The
/// result is the table as CSV.
pub(crate) async fn run(
    options: DatabaseOptions,
    table: &TableName,
    folder: &Path,
) -> Result<String> {
    let location = Location::directory(folder.join("repository"))?;
    let place = open(&location, &StoreOptions::new(Intent::Create))?;
    let secret = Secret::passphrase("correct horse battery staple");
    let repository = Repository::init(place, &secret, &InitOptions::default()).await?;
    let (context, transfers) = (Context::silent(), TransferOptions::default());

    // Back up: one moment of the database.
    let connection = options.connection.clone();
    let source = DatabaseSource::new("shop", options);
    let sink = repository.sink(&WriteOptions::default());
    let taken = transfer(&source, &sink, &transfers, &context).await?;
    let rows = taken.completion.facts.unsigned("database.rows").unwrap_or_default();
    println!("backed up {rows} rows as of {}", taken.completion.taken);

    // Restore beside it. The name is given when all is there and was compared with the backup.
    let info = repository.find("latest", None).await?;
    let snapshot = repository.snapshot(&info.id).await?;
    let restore =
        DatabaseRestoreOptions::new(connection, "shop_restored").with_facts(info.facts.clone());
    let everything = snapshot.source(&Selection::all());
    transfer(&everything, &DatabaseSink::new(restore), &transfers, &context).await?;

    // One table as CSV.
    let file = folder.join("table.csv");
    let out = tokio::fs::File::create(&file).await.map_err(|error| io(&file, error))?;
    let mut export = ExportOptions::default();
    export.form = ExportForm::Csv;
    let mut paths = vec![table.path()?];
    for name in ExportSink::NEEDS {
        paths.push(EntryPath::new(name)?);
    }
    let only = snapshot.source(&Selection::paths(paths));
    transfer(&only, &ExportSink::new(out, export), &transfers, &context).await?;
    tokio::fs::read_to_string(&file).await.map_err(|error| io(&file, error))
}

fn io(file: &Path, error: std::io::Error) -> lifeboat::Error {
    lifeboat::Error::io(format!("use {}", file.display()), error)
}
