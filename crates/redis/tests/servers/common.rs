//! What the tests share.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Bytes, Completion, Context, EntryPath, Receipt, Result, Sink, TransferOptions, transfer,
};
use lifeboat_redis::rdb::{Item, RdbReader, Record};
use lifeboat_redis::{ConnectOptions, RdbFileSink, RedisSource, RestoreOptions, facts};
use lifeboat_testbed::redis::Server;

pub(crate) fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

pub(crate) fn source(url: &str) -> RedisSource {
    RedisSource::new("cache", ConnectOptions::parse(url).unwrap())
}

/// Takes a snapshot.
pub(crate) async fn back_up(source: &RedisSource) -> Result<(MemoryStore, Completion)> {
    let snapshot = MemoryStore::new("cache");
    let context = Context::silent();
    let summary = transfer(source, &snapshot, &TransferOptions::default(), &context).await?;
    assert_eq!(summary.warnings, 0);
    Ok((snapshot, summary.completion))
}

/// Puts a snapshot where it is told to.
pub(crate) async fn back_up_to(source: &RedisSource, sink: &dyn Sink) -> Result<()> {
    let context = Context::silent();
    transfer(source, sink, &TransferOptions::default(), &context).await.map(|_| ())
}

pub(crate) fn dump(snapshot: &MemoryStore) -> Bytes {
    snapshot.content(&EntryPath::new("dump.rdb").unwrap()).unwrap()
}

/// Restores a snapshot to a file.
pub(crate) async fn restore(snapshot: &MemoryStore, path: &Path) -> Result<Receipt> {
    restore_with(snapshot, RestoreOptions::new(path)).await
}

pub(crate) async fn restore_with(snapshot: &MemoryStore, how: RestoreOptions) -> Result<Receipt> {
    let (sink, context) = (RdbFileSink::new(how), Context::silent());
    let summary = transfer(snapshot, &sink, &TransferOptions::default(), &context).await?;
    Ok(summary.receipt)
}

/// All keys of an RDB.
pub(crate) fn keys(rdb: &[u8]) -> Vec<Record> {
    let mut reader = RdbReader::new(rdb);
    let mut keys = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        if let Item::Key(key) = item {
            keys.push(key);
        }
    }
    reader.finish().unwrap();
    keys
}

/// Counts that a snapshot says.
pub(crate) fn counts(completion: &Completion, name: &str) -> BTreeMap<String, u64> {
    let pairs = completion.facts.pairs(name).unwrap().iter();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    pairs.map(|(name, count)| (text(name), text(count).parse().unwrap())).collect()
}

pub(crate) fn key_count(completion: &Completion) -> u64 {
    completion.facts.unsigned(facts::KEYS).unwrap()
}

/// Values of every type in every encoding that this server has.
pub(crate) fn fill(server: &Server) {
    let number = server.installation().number();
    let mut commands = String::from(
        "SET s:int 12345\nSET s:negative -70000\nSET s:text \"hello, \\x00 \\xff world\"\nSET s:empty \"\"\n\
         SET 4711 name-is-a-number\nSET s:float 3.25\n\
         EVAL \"redis.call('SET','s:packed',string.rep('abc',5000))\" 0\n\
         EVAL \"redis.call('SET',string.rep('k',300),'name is packed')\" 0\n\
         SET e:ms 1 PX 86400123\nSET e:s 1 EX 86400\n\
         RPUSH l:small 1 2 three\n\
         EVAL \"for i=1,3000 do redis.call('RPUSH','l:large',string.rep('x',i%50)..i) end\" 0\n\
         SADD set:int 1 2 300000\nSADD set:text a b c\n\
         EVAL \"for i=1,600 do redis.call('SADD','set:large','m'..i) end\" 0\n\
         ZADD z:small 1 a 2.5 b inf c -inf d\n\
         EVAL \"for i=1,300 do redis.call('ZADD','z:large',i/3,'m'..i) end\" 0\n\
         HSET h:small f v g w\n\
         EVAL \"for i=1,700 do redis.call('HSET','h:large','f'..i,'v'..i) end\" 0\n\
         EVAL \"for i=1,300 do redis.call('XADD','x:groups',i..'-1','n',i) end\" 0\n\
         XADD x:plain 5-1 a b\nXADD x:plain 6-1 a b\nXDEL x:plain 6-1\n\
         XGROUP CREATE x:groups g 0\nXGROUP CREATE x:groups idle $\n\
         XREADGROUP GROUP g alice COUNT 50 STREAMS x:groups >\n\
         XREADGROUP GROUP g bob COUNT 5 STREAMS x:groups >\nXACK x:groups g 3-1\n\
         SELECT 7\nSET other 1\nSET leaving 2 EX 100000\n",
    );
    if number >= (7, 0) {
        commands += "DEBUG QUICKLIST-PACKED-THRESHOLD 100b\nSELECT 0\n\
             EVAL \"redis.call('RPUSH','l:plain','a',string.rep('p',500),'b')\" 0\n\
             FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('f', function() return 7 end)\"\n";
    }
    if number >= (7, 4) {
        commands += "HSET h:expires f v g w\nHPEXPIRE h:expires 86400000 FIELDS 1 f\n\
             EVAL \"for i=1,700 do redis.call('HSET','h:expires:large','f'..i,'v'..i) end\" 0\n\
             HPEXPIRE h:expires:large 86400000 FIELDS 2 f1 f2\n";
    }
    if server.installation().module.is_some() {
        commands += "JSON.SET j $ \"{\\\"a\\\":[1,2.5,\\\"x\\\",null,true],\\\"b\\\":{\\\"c\\\":\\\"long enough\\\"}}\"\n";
    }
    server.run(&commands).unwrap();
}
