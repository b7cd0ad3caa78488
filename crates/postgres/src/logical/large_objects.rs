//! Large objects: what makes them, and their content.

use super::error::Result;
use super::name::{identifier, literal};
use crate::connect::{Session, failed};

/// Content is read and written in pieces of so many bytes.
const PIECE: u32 = 64 << 10;

const OBJECTS: &str = "
    SELECT m.oid, pg_get_userbyid(m.lomowner)::text, obj_description(m.oid, 'pg_largeobject'),
        ARRAY(SELECT CASE WHEN a.grantee = 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END
              FROM aclexplode(m.lomacl) a WHERE a.grantee <> m.lomowner
                AND a.privilege_type = 'SELECT'),
        ARRAY(SELECT CASE WHEN a.grantee = 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END
              FROM aclexplode(m.lomacl) a WHERE a.grantee <> m.lomowner
                AND a.privilege_type = 'UPDATE')
    FROM pg_largeobject_metadata m ORDER BY m.oid";

/// The statements that make all large objects, without content; and how many there are.
pub(super) async fn objects(session: &Session) -> Result<(u64, Vec<u8>)> {
    const WHAT: &str = "list the large objects";
    let mut script = String::new();
    let rows = session.all(WHAT, OBJECTS, &[]).await?;
    for row in &rows {
        let read = || -> Result<String, tokio_postgres::Error> {
            let (oid, owner): (u32, String) = (row.try_get(0)?, row.try_get(1)?);
            let comment: Option<String> = row.try_get(2)?;
            let mut script = format!(
                "SELECT pg_catalog.lo_create('{oid}');\n\
                 ALTER LARGE OBJECT {oid} OWNER TO {};\n",
                identifier(&owner)
            );
            if let Some(comment) = comment {
                script += &format!("COMMENT ON LARGE OBJECT {oid} IS {};\n", literal(&comment));
            }
            for (right, column) in [("SELECT", 3), ("UPDATE", 4)] {
                for grantee in row.try_get::<_, Vec<String>>(column)? {
                    let to = match grantee.as_str() {
                        "" => "PUBLIC".to_owned(),
                        role => identifier(role),
                    };
                    script += &format!("GRANT {right} ON LARGE OBJECT {oid} TO {to};\n");
                }
            }
            Ok(script)
        };
        script += &read().map_err(|error| failed(WHAT, error))?;
    }
    Ok((rows.len() as u64, script.into_bytes()))
}

/// The statement that reads their content: oid, offset and bytes, in that order. How large an
/// object is, only its end tells; each is closed before the next is opened, whose `lo_close` must
/// not come before its `lo_lseek64`.
pub(super) fn statement() -> String {
    format!(
        "COPY (SELECT m.oid, piece.at, pg_catalog.lo_get(m.oid, piece.at, {PIECE}) \
         FROM (SELECT oid, pg_catalog.lo_open(oid, 262144) AS fd \
               FROM pg_catalog.pg_largeobject_metadata ORDER BY oid OFFSET 0) AS m, \
         LATERAL (SELECT pg_catalog.lo_lseek64(m.fd, 0, 2) AS bytes OFFSET 0) AS size, \
         LATERAL (SELECT pg_catalog.lo_close(m.fd + (size.bytes * 0)::int4) OFFSET 0) AS closed, \
         LATERAL pg_catalog.generate_series(0::int8, size.bytes - 1, {PIECE}) AS piece(at)) \
         TO STDOUT (FORMAT text)"
    )
}

/// Oid, offset and content of a line.
pub(super) fn piece(line: &[u8]) -> Option<(u32, i64, Vec<u8>)> {
    let mut fields = line.split(|byte| *byte == b'\t');
    let oid = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let at = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    // COPY doubles the backslash.
    let digits = fields.next()?.strip_prefix(b"\\\\x")?;
    if fields.next().is_some() || digits.len() % 2 != 0 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    Some((oid, at, bytes.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_copy_writes_them() {
        let bytes = piece(b"16440\t65536\t\\\\x00ff41");
        assert_eq!(bytes, Some((16440, 65536, vec![0, 255, b'A'])));
        assert_eq!(piece(b"1\t0\t\\\\x"), Some((1, 0, vec![])));
        for bad in [&b"1\t0"[..], b"1\t0\t\\x00", b"1\t0\t\\\\x0", b"1\t0\t\\\\x0g", b"a\t0\t\\\\x"]
        {
            assert_eq!(piece(bad), None);
        }
    }
}
