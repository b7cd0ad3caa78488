//! Foreign keys: rows that refer to nothing.

use tokio_postgres::Row;

use crate::connect::Session;
use crate::error::Result;

/// The foreign keys that the server says hold: the name, both tables, whether a row counts that is
/// NULL in part, and each pair of columns with the operator that compares them.
const FOREIGN_KEYS: &str = "
SELECT format('%s on %s', quote_ident(c.conname), c.conrelid::regclass),
       c.conrelid::regclass::text, c.confrelid::regclass::text,
       r.relkind = 'p', p.relkind = 'p', c.confmatchtype = 'f',
       array_agg(quote_ident(f.attname) ORDER BY k.n),
       array_agg(quote_ident(t.attname) ORDER BY k.n),
       array_agg(format('OPERATOR(%I.%s)', s.nspname, o.oprname) ORDER BY k.n)
FROM pg_constraint c
JOIN pg_class r ON r.oid = c.conrelid
JOIN pg_class p ON p.oid = c.confrelid
CROSS JOIN LATERAL unnest(c.conkey, c.confkey, c.conpfeqop)
     WITH ORDINALITY AS k(own, other, operator, n)
JOIN pg_attribute f ON f.attrelid = c.conrelid AND f.attnum = k.own
JOIN pg_attribute t ON t.attrelid = c.confrelid AND t.attnum = k.other
JOIN pg_operator o ON o.oid = k.operator
JOIN pg_namespace s ON s.oid = o.oprnamespace
WHERE c.contype = 'f' AND c.convalidated AND c.conparentid = 0 AND r.relpersistence = 'p'
GROUP BY c.oid, c.conname, c.conrelid, c.confrelid, r.relkind, p.relkind, c.confmatchtype
ORDER BY 1";

/// A foreign key.
#[derive(Debug, Clone)]
pub(super) struct ForeignKey {
    pub(super) name: String,
    /// Counts the rows that it forbids.
    pub(super) query: String,
}

/// All foreign keys of a database.
pub(super) async fn of(session: &Session) -> Result<Vec<ForeignKey>> {
    let what = "list the foreign keys";
    let periods = match session.major() {
        // One over time compares spans, and needs another query.
        18.. => FOREIGN_KEYS.replace("c.convalidated", "c.convalidated AND NOT c.conperiod"),
        _ => FOREIGN_KEYS.to_owned(),
    };
    let rows = session.all(what, &periods, &[]).await?;
    Ok(rows.iter().map(foreign_key).collect())
}

fn foreign_key(row: &Row) -> ForeignKey {
    let (own, other): (String, String) = (row.get(1), row.get(2));
    let (own_parted, other_parted, whole): (bool, bool, bool) =
        (row.get(3), row.get(4), row.get(5));
    let (from, to, operators): (Vec<String>, Vec<String>, Vec<String>) =
        (row.get(6), row.get(7), row.get(8));
    // A table's own rows, or those of its partitions; never those of tables that inherit from it.
    let only = |parted: bool| if parted { "" } else { "ONLY " };
    let pairs = from.iter().zip(&to).zip(&operators);
    let same: Vec<_> =
        pairs.map(|((from, to), operator)| format!("p.{to} {operator} c.{from}")).collect();
    let given: Vec<_> = from.iter().map(|from| format!("c.{from} IS NOT NULL")).collect();
    let mut wrong = format!(
        "{} AND NOT EXISTS (SELECT 1 FROM {}{other} p WHERE {})",
        given.join(" AND "),
        only(other_parted),
        same.join(" AND ")
    );
    if whole && from.len() > 1 {
        let (all, some) = (given.join(" AND "), given.join(" OR "));
        wrong = format!("({wrong}) OR (({some}) AND NOT ({all}))");
    }
    let query = format!("SELECT count(*) FROM {}{own} c WHERE {wrong}", only(own_parted));
    ForeignKey { name: row.get(0), query }
}
