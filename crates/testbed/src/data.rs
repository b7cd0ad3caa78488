//! Data that looks real, changes to it, and digests to compare two databases by.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tokio_postgres::Client;

const SEED: &str = include_str!("data/seed.sql");
const MUTATE: &str = include_str!("data/mutate.sql");

/// How much data to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    orders: u32,
}

impl Size {
    /// A few megabytes, made in less than a second.
    pub const TINY: Self = Self { orders: 2_000 };
    /// About 50 MB.
    pub const SMALL: Self = Self { orders: 30_000 };
    /// About 250 MB.
    pub const MEDIUM: Self = Self { orders: 170_000 };
    /// About 1 GB, made in less than a minute.
    pub const LARGE: Self = Self { orders: 720_000 };

    /// About this many megabytes.
    pub const fn megabytes(megabytes: u32) -> Self {
        let orders = megabytes.saturating_mul(710);
        Self { orders: if orders < 500 { 500 } else { orders } }
    }
}

/// Fills an empty database with a shop: customers, their orders, items and payments, events (JSON,
/// partitioned by month), documents (long texts, stored out of line), a materialized view, and an
/// unlogged table of sessions. The same size makes the same data.
pub async fn seed(client: &Client, size: Size) -> Result<()> {
    let script = SEED.replace("{orders}", &size.orders.to_string());
    client.batch_execute(&script).await.context("fill the database")
}

/// Goes on with the shop's business: new orders, updates scattered over the older ones, some
/// deletions. The same round makes the same changes to the same data.
pub async fn mutate(client: &Client, round: u32) -> Result<()> {
    let script = MUTATE.replace("{round}", &round.to_string());
    client.batch_execute(&script).await.context("change the data")
}

/// What a table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDigest {
    /// How many rows.
    pub rows: u64,
    /// A sum over a hash of each row: no row can differ, be missing or be there twice without
    /// changing it, and the order of the rows does not matter.
    pub digest: String,
}

/// Digests of all tables, partitions and materialized views of a database, by `schema.table`, as of
/// one moment. The server reads and hashes every row.
///
/// Unlogged tables are passed over: they are empty after a crash, and so after a restore. Sequences
/// are, too: they may skip numbers then.
pub async fn digests(client: &Client) -> Result<BTreeMap<String, TableDigest>> {
    client.batch_execute(BEGIN).await.context("begin to read")?;
    let outcome = digests_in_transaction(client).await;
    client.batch_execute("commit").await.context("end the reading")?;
    outcome
}

/// One snapshot for all tables, and rows as text in one form whatever the server's settings.
const BEGIN: &str = "begin isolation level repeatable read, read only;
    set local search_path = pg_catalog;
    set local datestyle = 'iso, ymd';
    set local intervalstyle = 'postgres';
    set local timezone = 'UTC';
    set local bytea_output = 'hex';
    set local extra_float_digits = 3;";

const TABLES: &str =
    "select format('%s.%s', n.nspname, c.relname), format('%I.%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and c.relpersistence = 'p'
      and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'";

async fn digests_in_transaction(client: &Client) -> Result<BTreeMap<String, TableDigest>> {
    let mut digests = BTreeMap::new();
    for table in client.query(TABLES, &[]).await.context("list the tables")? {
        let (name, quoted): (String, String) = (table.get(0), table.get(1));
        // Two halves of a hash, each summed up on its own. The odd alias cannot be a column's name.
        let query = format!(
            "select count(*), coalesce(sum(('x' || left(hash, 16))::bit(64)::bigint::numeric), 0)::text,
                    coalesce(sum(('x' || right(hash, 16))::bit(64)::bigint::numeric), 0)::text
             from (select md5((\"a row\".*)::text) as hash from only {quoted} as \"a row\") as hashes"
        );
        let row = client.query_one(&query, &[]).await.with_context(|| format!("read {name}"))?;
        let (rows, first, second): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
        let rows = u64::try_from(rows).context("a count")?;
        digests.insert(name, TableDigest { rows, digest: format!("{first}/{second}") });
    }
    Ok(digests)
}
