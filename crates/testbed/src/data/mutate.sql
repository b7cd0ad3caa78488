-- A day of the shop's business; {round} makes each day differ. About one row in a hundred changes.
begin;
create or replace function pg_temp.pick(n bigint, salt bigint, choices bigint) returns bigint
    language sql immutable parallel safe
    as $$ select (hashint8extended(n, salt + {round}) & 9223372036854775807) % choices $$;

with placed as (
    insert into orders (customer_id, status, placed, total, note)
    select id, 'new', timestamptz '2026-01-01 00:00+00' + {round} * interval '1 hour', (500 + pg_temp.pick(id, 101, 100000)) / 100.0,
        'round {round}'
    from customers where pg_temp.pick(id, 100, 20) = 0 order by id
    returning id, total
)
insert into order_items select id, 1, 'SKU-ROUND-' || {round}, 1, total from placed;

update customers set last_ip = '10.0.0.0'::inet + pg_temp.pick(id, 103, 16777216), tags = array_append(tags, 'seen-{round}')
where pg_temp.pick(id, 102, 100) = 0;
update orders set status = 'done', note = coalesce(note, '') || ' closed in round {round}' where pg_temp.pick(id, 104, 100) = 0;
update documents set body = body || E'\n\nAmended in round {round}: ' || md5(body) where pg_temp.pick(id, 105, 50) = 0;
delete from payments where pg_temp.pick(order_id, 106, 200) = 0;
delete from orders where pg_temp.pick(id, 107, 400) = 0;
insert into events (at, payload)
select timestamptz '2026-01-01 00:00+00' + {round} * interval '1 hour' + n * interval '1 second',
    jsonb_build_object('kind', 'mutation', 'round', {round}, 'token', md5((n * 1000 + {round})::text))
from generate_series(1, greatest((select count(*) / 100 from orders), 10)) as n;
commit;

refresh materialized view revenue;
