//! RDBs written by hand, byte by byte; those of real servers are in `tests/`.

use proptest::prelude::*;

use super::checksum::crc64;
use super::*;

/// A header, `body`, the end and its checksum.
fn rdb(header: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = [header.as_bytes(), body, b"\xff"].concat();
    let crc = crc64(0, &bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

fn items(bytes: &[u8]) -> Vec<Item> {
    let mut reader = RdbReader::new(bytes);
    let mut items = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        items.push(item);
    }
    assert_eq!(reader.finish().unwrap(), (Checksum::Right, bytes.len() as u64));
    items
}

fn keys(bytes: &[u8]) -> Vec<Record> {
    let keys = items(bytes).into_iter().filter_map(|item| match item {
        Item::Key(record) => Some(record),
        _ => None,
    });
    keys.collect()
}

/// The empty dataset, as Redis 7.0 writes it without auxiliary fields.
#[test]
fn an_empty_dataset_is_whole() {
    let bytes = rdb("REDIS0010", b"");
    assert_eq!(bytes.len(), 18);
    let outcome = check(&bytes[..]).unwrap();
    assert_eq!((outcome.checksum, outcome.length), (Checksum::Right, 18));
    assert_eq!(outcome.census, Census::default());
}

#[test]
fn a_record_says_what_it_is_and_where_it_lies() {
    // Database 3, sizes, then a key with idle time and expiry, then one without.
    let body = b"\xfe\x03\xfb\x02\x01\
        \xfc\x10\x27\x00\x00\x00\x00\x00\x00\xf8\x2a\x00\x01k\x05value\
        \xf9\x07\x00\xc0\x0c\x01v";
    let bytes = rdb("REDIS0009", body);
    let keys = keys(&bytes);
    let [first, second] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!((first.database, first.name.as_slice()), (3, &b"k"[..]));
    assert_eq!((first.expires, first.eviction), (Some(10_000), Some(Eviction::Idle(42))));
    let value = &bytes[usize::try_from(first.value).unwrap()..usize::try_from(first.end).unwrap()];
    assert_eq!(value, b"\x05value");
    assert_eq!(bytes[usize::try_from(first.start).unwrap()], 0xfc);
    // A name that is a number is written as one.
    assert_eq!((second.name.as_slice(), second.name_length), (&b"12"[..], 2));
    assert_eq!((second.expires, second.eviction), (None, Some(Eviction::Frequency(7))));
    assert_eq!(second.start, first.end);
    assert_eq!(second.end, bytes.len() as u64 - 9);
}

/// One value of each layout, as it stands behind type and name; what follows must be found.
fn values() -> Vec<(&'static str, u8, Vec<u8>, ValueType)> {
    let redis = "REDIS0012";
    let stream_tail = |version: u8| {
        // One listpack under its position; length and last position.
        let mut bytes = [&b"\x01\x10"[..], &[1; 16], b"\x04list", b"\x01\x05\x00"].concat();
        if version >= 2 {
            bytes.extend(b"\x05\x00\x00\x00\x01");
        }
        // A group with one pending entry, and a consumer that has it.
        bytes.extend(b"\x01\x01g\x05\x00");
        if version >= 2 {
            bytes.push(1);
        }
        bytes.extend([&b"\x01"[..], &[2; 24], b"\x01", b"\x01\x01c", &[3; 8]].concat());
        if version >= 3 {
            bytes.extend([4; 8]);
        }
        bytes.extend([&b"\x01"[..], &[2; 16]].concat());
        bytes
    };
    let timed = |rest: &[u8]| [&[9; 8][..], rest].concat();
    vec![
        (redis, 0, b"\x03abc".to_vec(), ValueType::String),
        (redis, 0, b"\xc3\x05\x0a\x00a\xe0\x00\x00".to_vec(), ValueType::String),
        (redis, 1, b"\x02\x01a\xc0\x07".to_vec(), ValueType::List),
        (redis, 2, b"\x01\x01a".to_vec(), ValueType::Set),
        (redis, 3, b"\x03\x01a\x031.5\x01b\xfe\x01c\xfd".to_vec(), ValueType::SortedSet),
        (redis, 4, b"\x01\x01f\x01v".to_vec(), ValueType::Hash),
        (redis, 5, [&b"\x01\x01a"[..], &[0; 8]].concat(), ValueType::SortedSet),
        (
            redis,
            7,
            [
                &b"\x81"[..],
                &[7; 8],
                b"\x01\x05\x02\x06\x03",
                &[0; 4],
                b"\x04",
                &[0; 8],
                b"\x05\x01s\x00",
            ]
            .concat(),
            ValueType::Module,
        ),
        (redis, 9, b"\x02zm".to_vec(), ValueType::Hash),
        (redis, 10, b"\x02zl".to_vec(), ValueType::List),
        (redis, 11, b"\x02is".to_vec(), ValueType::Set),
        (redis, 12, b"\x02zl".to_vec(), ValueType::SortedSet),
        (redis, 13, b"\x02zl".to_vec(), ValueType::Hash),
        (redis, 14, b"\x02\x02zl\x02zl".to_vec(), ValueType::List),
        (redis, 15, stream_tail(1), ValueType::Stream),
        (redis, 16, b"\x02lp".to_vec(), ValueType::Hash),
        (redis, 17, b"\x02lp".to_vec(), ValueType::SortedSet),
        (redis, 18, b"\x02\x01\x05plain\x02\x02lp".to_vec(), ValueType::List),
        (redis, 19, stream_tail(2), ValueType::Stream),
        (redis, 20, b"\x02lp".to_vec(), ValueType::Set),
        (redis, 21, stream_tail(3), ValueType::Stream),
        ("VALKEY080", 22, [&b"\x01\x01f\x01v"[..], &[0xff; 8]].concat(), ValueType::Hash),
        (redis, 24, timed(b"\x02\x00\x01f\x01v\x05\x01g\x01w"), ValueType::Hash),
        (redis, 25, timed(b"\x02lp"), ValueType::Hash),
    ]
}

#[test]
fn the_end_of_every_type_is_found() {
    for (header, code, value, kind) in values() {
        let body = [&[code, 1, b'k'][..], &value, b"\x00\x04next\x00"].concat();
        let bytes = rdb(header, &body);
        let keys = keys(&bytes);
        assert_eq!(keys.len(), 2, "type {code}");
        assert_eq!((keys[0].kind, keys[0].encoding), (kind, code));
        assert_eq!(keys[0].end - keys[0].value, value.len() as u64, "type {code}");
        assert_eq!(keys[1].name, b"next", "type {code}");
    }
}

#[test]
fn a_value_that_is_cut_off_is_never_taken_for_whole() {
    for (header, code, value, _) in values() {
        let whole = rdb(header, &[&[code, 1, b'k'][..], &value].concat());
        for length in 0..whole.len() {
            assert!(check(&whole[..length]).is_err(), "type {code}, {length} bytes");
        }
        check(&whole[..]).unwrap();
    }
}

#[test]
fn what_stands_between_keys_is_passed_over() {
    // An auxiliary field, a module's data, a library of functions, a slot, a module's note on a key.
    let body = b"\xfa\x09redis-ver\x067.0.15\
        \xf7\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x01\x05\x01s\x00\
        \xf5\x04code\xf4\x01\x02\x03\
        \xf3\x01\x01\x02\x03\x04\x02\x05\x00\x00\x01k\x01v";
    let outcome = check(&rdb("REDIS0013", body)[..]).unwrap();
    assert!(outcome.not_understood.is_none(), "{outcome:?}");
    assert_eq!(outcome.census.aux("redis-ver"), Some("7.0.15"));
    assert_eq!((outcome.census.functions, outcome.census.module_data), (1, 1));
    assert_eq!(outcome.census.keys(), 1);
}

#[test]
fn what_is_not_known_is_whole_when_its_checksum_says_so() {
    let newer = [
        rdb("REDIS0099", b"anything"),
        rdb("VALKEY081", b"anything"),
        rdb("REDIS0012", b"\x00\x01k\x01v\x1c\x01k\x01v"),
        rdb("REDIS0012", b"\xf2\x01"),
        // The same number is a type of Valkey, and one of a release candidate of Redis.
        rdb("REDIS0012", b"\x16\x01k\x00"),
        rdb("REDIS0012", b"\x12\x01k\x01\x03\x01x"),
    ];
    for bytes in newer {
        let outcome = check(&bytes[..]).unwrap();
        assert!(outcome.not_understood.is_some(), "{}", bytes.escape_ascii());
        assert_eq!(outcome.length, bytes.len() as u64);
        let mut damaged = bytes.clone();
        let last = damaged.len() - 10;
        damaged[last] ^= 1;
        let error = check(&damaged[..]).unwrap_err();
        assert!(matches!(error, RdbError::Checksum { .. } | RdbError::Version { .. }), "{error}");
        // Without a checksum nothing says that it is whole.
        let unsure = [&bytes[..bytes.len() - 8], &[0; 8]].concat();
        assert!(check(&unsure[..]).is_err());
    }
}

#[test]
fn without_a_checksum_the_structure_must_do() {
    let bytes = rdb("REDIS0011", b"\x00\x01k\x01v");
    let unsure = [&bytes[..bytes.len() - 8], &[0; 8]].concat();
    assert_eq!(check(&unsure[..]).unwrap().checksum, Checksum::Absent);
    let followed = [&unsure[..], &[0; 9]].concat();
    assert!(matches!(check(&followed[..]), Err(RdbError::Trailing { offset: 23 })));
}

#[test]
fn what_is_no_rdb_is_called_so() {
    for start in ["<html><body>...........", "REDISabcd............", "REDIS+123..........."] {
        let error = check(start.as_bytes()).unwrap_err();
        assert!(matches!(error, RdbError::NotRdb { .. } | RdbError::Checksum { .. }), "{error}");
    }
    assert!(matches!(check(&b""[..]), Err(RdbError::Truncated { .. })));
}

#[test]
fn long_names_are_held_in_part() {
    let length = u32::try_from(MAX_NAME + 1).unwrap();
    let name = [&b"\x80"[..], &length.to_be_bytes(), &vec![b'n'; MAX_NAME + 1]].concat();
    let bytes = rdb("REDIS0011", &[b"\x00", &name[..], b"\x01v"].concat());
    let keys = keys(&bytes);
    assert_eq!((keys[0].name.len(), keys[0].name_length), (MAX_NAME, MAX_NAME as u64 + 1));
}

/// A body of keys and instructions in any order.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let redis = values().into_iter().filter(|(header, ..)| header.starts_with("REDIS"));
    let redis: Vec<_> = redis.collect();
    let piece = (any::<prop::sample::Index>(), "[a-z]{1,40}", 0..4_u8).prop_map(
        move |(which, name, before)| {
            let (_, code, value, _) = which.get(&redis);
            let mut bytes = match before {
                0 => b"\xfe\x01".to_vec(),
                1 => b"\xfd\x01\x02\x03\x04".to_vec(),
                2 => b"\xfa\x01a\x01b".to_vec(),
                _ => Vec::new(),
            };
            bytes.extend([*code, u8::try_from(name.len()).unwrap_or(0)]);
            bytes.extend(name.bytes());
            bytes.extend(value);
            bytes
        },
    );
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_flipped_bit_is_found(body in any_body(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let whole = rdb("REDIS0012", &body);
        let outcome = check(&whole[..]).unwrap();
        prop_assert!(outcome.not_understood.is_none());
        let mut damaged = whole.clone();
        damaged[at.index(whole.len())] ^= 1_u8 << bit;
        prop_assert!(check(&damaged[..]).is_err());
    }

    #[test]
    fn records_and_what_lies_between_make_up_the_whole(body in any_body()) {
        let whole = rdb("REDIS0012", &body);
        let mut last = 9;
        for key in keys(&whole) {
            prop_assert!(last <= key.start && key.start < key.value && key.value < key.end);
            last = key.end;
        }
        prop_assert!(last <= whole.len() as u64 - 9);
    }

    #[test]
    fn nothing_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut input = b"REDIS0012".to_vec();
        input.extend(bytes);
        let _ = check(&input[..]);
    }
}
