//! Queries of the owner, and what they should answer.

/// A query, and what it should answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedResult {
    /// The database in which it is asked.
    pub database: String,
    /// The query. Several statements may stand in it; the rows of the last that gives any count.
    pub sql: String,
    /// The rows, each value as text as `psql` shows it; `None` for NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

/// Rows in a line, for a message.
pub(super) fn shown(rows: &[Vec<Option<String>>]) -> String {
    /// So many rows are shown.
    const SHOWN: usize = 5;
    if rows.is_empty() {
        return "no row".to_owned();
    }
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    let row = |row: &Vec<Option<String>>| {
        let values: Vec<_> = row.iter().map(value).collect();
        format!("({})", values.join(", "))
    };
    let mut text: Vec<_> = rows.iter().take(SHOWN).map(row).collect();
    if rows.len() > SHOWN {
        text.push(format!("and {} more", rows.len() - SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shown_in_a_line() {
        let row = |values: &[Option<&str>]| {
            values.iter().map(|value| value.map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[]), "no row");
        assert_eq!(shown(&[row(&[Some("1"), None]), row(&[Some("")])]), "(1, NULL), ()");
        let many = vec![row(&[Some("1")]); 7];
        assert!(shown(&many).ends_with("(1), and 2 more"));
    }
}
