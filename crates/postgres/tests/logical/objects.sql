CREATE SCHEMA shop;
CREATE SCHEMA "Odd/../schema.";
CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'so;so');
CREATE DOMAIN shop.positive AS int CHECK (VALUE > 0);
CREATE TYPE shop.pair AS (a int, b text);
CREATE FUNCTION shop.twice(x int) RETURNS int LANGUAGE sql IMMUTABLE
    BEGIN ATOMIC SELECT CASE WHEN x > 0 THEN x * 2 ELSE 0 END; END;
CREATE FUNCTION shop.stamp() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    -- a comment; with a semicolon
    NEW.note := coalesce(NEW.note, 'it''s; \n');
    RETURN NEW;
END $body$;
CREATE TABLE shop.customers (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    mood shop.mood,
    doubled int GENERATED ALWAYS AS (length(name) * 2) STORED,
    dropped int
);
ALTER TABLE shop.customers DROP COLUMN dropped;
ALTER TABLE shop.customers ADD COLUMN "Odd ""col"", x" text DEFAULT 'é';
CREATE TABLE shop.orders (
    id serial PRIMARY KEY,
    customer int REFERENCES shop.customers,
    amount shop.positive CHECK (amount < 1000000),
    note text
);
CREATE INDEX ON shop.orders (customer);
CREATE INDEX ON shop.orders (shop.twice(amount::int));
CREATE TRIGGER stamp BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.stamp();
CREATE TABLE "Odd/../schema."."tab%le
new" (id int, "select" text);
CREATE TABLE shop.kinds (
    b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, t text, v varchar(5), c char(3),
    by bytea, d date, ts timestamp, tz timestamptz, iv interval, j json, jb jsonb, u uuid,
    a int[], ta text[], r int4range, ip inet, m macaddr, bi bit(3), p point, pa shop.pair,
    tv tsvector, o oid, rc regclass, mo money
);
CREATE TABLE shop.events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE shop.events_2 PARTITION OF shop.events DEFAULT;
CREATE INDEX ON shop.events (at);
CREATE TABLE shop.parent (a int);
CREATE TABLE shop.child (b int) INHERITS (shop.parent);
CREATE UNLOGGED TABLE shop.sessions (id int);
CREATE VIEW shop.totals AS SELECT customer, sum(amount) AS sum FROM shop.orders GROUP BY 1;
CREATE MATERIALIZED VIEW shop.cached AS SELECT * FROM shop.totals;
CREATE UNIQUE INDEX ON shop.cached (customer);
CREATE SEQUENCE shop.free START 5 INCREMENT 3;
CREATE TABLE shop.log (line text);
CREATE RULE to_log AS ON DELETE TO shop.orders DO ALSO
    (INSERT INTO shop.log VALUES (OLD.note); INSERT INTO shop.log VALUES ('; and more'));
CREATE STATISTICS shop.s (dependencies) ON customer, amount FROM shop.orders;
CREATE TABLE shop.guarded (owner name, secret text);
ALTER TABLE shop.guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON shop.guarded USING (owner = current_user);
COMMENT ON TABLE shop.orders IS 'what was ordered; \ ''quoted''';
CREATE ROLE reader;
CREATE ROLE "Other Owner";
GRANT USAGE ON SCHEMA shop TO reader;
GRANT SELECT ON shop.orders TO reader;
ALTER TABLE shop.log OWNER TO "Other Owner";
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO reader;

INSERT INTO shop.customers (name, mood) SELECT 'n' || i, 'so;so' FROM generate_series(1, 500) i;
INSERT INTO shop.orders (customer, amount) SELECT 1 + i % 500, i FROM generate_series(1, 5000) i;
INSERT INTO shop.orders (customer, amount, note) VALUES (1, 2, NULL), (2, 3, ''), (3, 4, '\N'),
    (4, 5, E'tab\there\nline\rback\\slash\bx'), (5, 6, '\.'), (6, 7, 'größe 漢字 😀'), (7, 8, E'\x01\x7f');
INSERT INTO "Odd/../schema."."tab%le
new" VALUES (1, 'x'), (NULL, NULL);
SET lc_monetary = 'C';
INSERT INTO shop.kinds VALUES
    (true, -32768, 9223372036854775807, 'NaN', '-Infinity', 1.2300, 't', 'v', 'c', '\x00ff0a5c',
     '4713-01-01 BC', 'infinity', '2026-11-22 03:04:05.123456+02', '1 year -2 days 03:04:05.6', '{"a" : 1}', '{"b": [1, null]}',
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{1,NULL,3}', '{"a,b",NULL,"q\"uote",""}', '[1,5)',
     '192.168.0.1/24', '08:00:2b:01:02:03', B'101', '(1.5,-2)', ROW(1, 'x,"y'),
     'a:1 b:2', 42, 'shop.orders', 12.34);
INSERT INTO shop.kinds (b) VALUES (NULL);
INSERT INTO shop.kinds (f4, f8, by) SELECT 1::float4 / i, pi() / i, decode(md5(i::text), 'hex') FROM generate_series(1, 200) i;
INSERT INTO shop.events SELECT '2026-01-01'::date + i, 'e' || i FROM generate_series(0, 364) i;
INSERT INTO shop.parent VALUES (1); INSERT INTO shop.child VALUES (2, 3);
INSERT INTO shop.sessions VALUES (1), (2);
INSERT INTO shop.guarded VALUES ('postgres', 's'), ('other', 't');
SELECT nextval('shop.free'), nextval('shop.free');
REFRESH MATERIALIZED VIEW shop.cached;
SELECT lo_from_bytea(70001, repeat('large object ', 20000)::bytea);
SELECT lo_create(70002);
SELECT lo_put(lo_create(70003), 200000, 'after a hole');
COMMENT ON LARGE OBJECT 70001 IS 'it''s large';
GRANT SELECT ON LARGE OBJECT 70001 TO reader;
ALTER DATABASE shop SET search_path = shop, "$user", 'Odd/../schema.';
ALTER DATABASE shop SET work_mem = '5MB';
COMMENT ON DATABASE shop IS 'the ''shop''';
