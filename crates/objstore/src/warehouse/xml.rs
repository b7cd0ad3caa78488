//! The few words of S3's answers that are needed, found in their XML.

/// The text of the first element of this name, without its entities; `None` when there is none.
pub(super) fn text(xml: &str, name: &str) -> Option<String> {
    raw(xml, name).map(unescape)
}

/// What lies in every element of this name, one after the other.
pub(super) fn each<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&open)?;
        let (inside, left) = after.split_once(&close)?;
        rest = left;
        Some(inside)
    })
}

fn raw<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = rest.split_once(';').map(|(entity, _)| entity);
        let decoded = entity.and_then(|entity| match entity {
            "&amp" => Some('&'),
            "&lt" => Some('<'),
            "&gt" => Some('>'),
            "&quot" => Some('"'),
            "&apos" => Some('\''),
            other => {
                let number = other.strip_prefix("&#")?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)
            }
        });
        match (decoded, entity) {
            (Some(character), Some(entity)) => {
                out.push(character);
                rest = &rest[entity.len() + 1..];
            }
            _ => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_and_entities_read() {
        let xml = "<L><C><Key>a&amp;b/&#x31;&#50;</Key><S>GLACIER</S></C><C><Key>c&</Key></C></L>";
        let all: Vec<_> = each(xml, "C").collect();
        assert_eq!(all.len(), 2);
        assert_eq!(text(all[0], "Key").unwrap(), "a&b/12");
        assert_eq!(text(all[0], "S").unwrap(), "GLACIER");
        assert_eq!(text(all[1], "Key").unwrap(), "c&");
        assert_eq!(text(all[1], "S"), None);
        assert_eq!(each("<C>unended", "C").count(), 0);
    }
}
