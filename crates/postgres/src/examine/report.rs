//! What came of an examination.

/// No more problems are kept; all are counted.
const KEPT: usize = 10_000;

/// What came of an examination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// Databases that were examined.
    pub databases: u64,
    /// Tables whose rows were all read; catalogs are not counted.
    pub tables: u64,
    /// How many rows those have.
    pub rows: u64,
    /// B-tree indexes that were checked.
    pub indexes: u64,
    /// Foreign keys that were checked.
    pub foreign_keys: u64,
    /// Queries whose results were compared.
    pub queries: u64,
    /// The rows of each table, by database, schema and name.
    pub counts: Vec<Counted>,
    /// What is wrong; the first ten thousand.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problem_count: u64,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
}

/// How many rows a table has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    /// Its database.
    pub database: String,
    /// Schema and name, as SQL quotes them.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
}

/// Something that is wrong with a restored cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// In which database.
    pub database: String,
    /// With what: a table, an index, a constraint, a query.
    pub object: String,
    /// What it is.
    pub what: String,
}

impl Examination {
    pub(super) fn problem(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < KEPT {
            self.problems.push(problem);
        }
    }
}
