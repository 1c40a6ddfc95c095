SELECT 1
SELECT version(), currentUser(), currentDatabase(), hostName()
SELECT * FROM numbers(3)
SELECT count() FROM (SELECT * FROM generateRandom('a UInt8', 1, 2) LIMIT 1)
SELECT * FROM values('a UInt8', 1, 2)
SELECT count() FROM merge('default', '^t$')
SELECT * FROM view(SELECT 1 AS a)
SELECT * FROM format(JSONEachRow, '{"file": 1}')
SELECT format('{} {}', 'a', 'b')
SELECT 'INTO OUTFILE', 'file(x)' AS file, `file` FROM (SELECT 1 AS file)
SELECT file FROM (SELECT 'x' AS file) WHERE file = 'INTO OUTFILE ''x'''
SELECT url.x, s3.redis FROM (SELECT 1 AS x) AS url, (SELECT 2 AS redis) AS s3
WITH url AS (SELECT 1 AS x) SELECT * FROM url
CREATE TABLE url (file String, disk UInt8, infile String, outfile String) ENGINE = Memory
INSERT INTO url (file, disk) VALUES ('file(1)', 1 + 1)
INSERT INTO url (file, disk) VALUES (upper('x'), toUInt8(now() > 0))
INSERT INTO url SELECT 'x', 1, 'y', 'z'
SELECT infile, outfile FROM url
SELECT b AS parallel, count() FROM t GROUP BY parallel WITH TOTALS
SELECT a AS parallel FROM t ORDER BY parallel WITH FILL
SHOW TABLES
SHOW CREATE TABLE url
SHOW DATABASES
SHOW PROCESSLIST
SHOW COLUMNS FROM url
SHOW SETTINGS LIKE 'max_threads'
SHOW FUNCTIONS LIKE 'file'
DESCRIBE url
DESC TABLE url
EXISTS url
EXISTS TABLE nowhere
EXPLAIN SELECT 1
EXPLAIN PIPELINE SELECT sum(a) FROM t
ALTER TABLE t ADD COLUMN c String DEFAULT concat(b, 'x')
ALTER TABLE t MODIFY COLUMN c LowCardinality(String)
ALTER TABLE t UPDATE c = 'y' WHERE a = 1 SETTINGS mutations_sync = 1
ALTER TABLE t DROP COLUMN c
ALTER TABLE t ADD INDEX i b TYPE bloom_filter GRANULARITY 1
ALTER TABLE t DROP INDEX i
ALTER TABLE t ADD PROJECTION p (SELECT a, count() GROUP BY a)
ALTER TABLE t DROP PROJECTION p
DELETE FROM t WHERE a = 2
OPTIMIZE TABLE t FINAL
CHECK TABLE t
SYSTEM STOP MERGES t
SYSTEM START MERGES t
SYSTEM FLUSH LOGS
SYSTEM DROP QUERY CACHE
KILL QUERY WHERE query_id = 'nobody'
CREATE DATABASE other
CREATE TABLE other.m (a UInt64, d Date, v Float64) ENGINE = MergeTree PARTITION BY toYYYYMM(d) ORDER BY a TTL d + INTERVAL 100 YEAR SETTINGS index_granularity = 1024
CREATE TABLE other.r (a UInt64, v UInt64) ENGINE = ReplacingMergeTree(v) ORDER BY a
CREATE TABLE other.l (a UInt64) ENGINE = Log
CREATE TABLE other.n AS other.m ENGINE = Null
CREATE TABLE other.b AS other.m ENGINE = Buffer(other, m, 1, 10, 100, 10, 100, 1000, 10000)
CREATE VIEW other.v AS SELECT a FROM other.m
CREATE MATERIALIZED VIEW other.mv TO other.l AS SELECT a FROM other.m
CREATE MATERIALIZED VIEW other.rv REFRESH EVERY 1 HOUR ENGINE = Memory AS SELECT 1 AS a
INSERT INTO other.m VALUES (1, today(), 2.5)
CREATE DICTIONARY dict (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(TABLE 't')) LAYOUT(FLAT()) LIFETIME(MIN 0 MAX 10)
SELECT dictGet('dict', 'b', toUInt64(1))
CREATE DICTIONARY asked (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(QUERY 'SELECT a, b FROM default.t')) LAYOUT(HASHED()) LIFETIME(0)
SELECT dictGet('asked', 'b', toUInt64(1))
SELECT * FROM dictionary('dict')
CREATE FUNCTION twice AS (x) -> x * 2
SELECT twice(21)
DROP FUNCTION twice
CREATE TABLE other.e ENGINE = Memory AS SELECT 1 AS a
RENAME TABLE other.e TO other.f
EXCHANGE TABLES other.f AND other.l
TRUNCATE TABLE other.l
DETACH TABLE other.f
ATTACH TABLE other.f
DROP TABLE other.r SYNC
USE other
SET max_threads = 2
SELECT count() FROM information_schema.tables
SELECT count() FROM system.tables FORMAT JSON
SELECT name, value FROM system.settings WHERE name = 'max_threads' FORMAT Native
DROP DICTIONARY asked
DROP DICTIONARY dict
DROP DATABASE other SYNC
