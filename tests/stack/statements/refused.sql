SELECT 'x' INTO OUTFILE '{new}'
SELECT 'x' INTO OUTFILE 'new_here.txt'
SELECT 'x' INTO OUTFILE '{file}' TRUNCATE
SELECT 'x' INTO OUTFILE '{file}' APPEND
SELECT 'x' INTO OUTFILE '{new}' AND STDOUT FORMAT CSV
SELECT 'x' INTO OUTFILE '{new}.gz' COMPRESSION 'gzip' LEVEL 3
SELECT 'x' INTO/**/OUTFILE '{new}'
SELECT 'x' iNtO -- no<newline> oUtFiLe '{new}'
(SELECT 'x') UNION ALL (SELECT 'y') INTO OUTFILE '{new}'
SELECT 'x' INTO OUTFILE $a${new}$a$
WITH 1 AS x SELECT x INTO OUTFILE '{new}'
SHOW TABLES INTO OUTFILE '{new}'
DESCRIBE TABLE t INTO OUTFILE '{new}'
EXISTS TABLE t INTO OUTFILE '{new}'
EXPLAIN SELECT 1 INTO OUTFILE '{new}'
INSERT INTO t FROM INFILE '{file}' FORMAT LineAsString
INSERT INTO t (b) FROM INFILE '{file}' COMPRESSION 'none' FORMAT LineAsString
INSERT INTO t (b) FROM INFILE '{file}' SETTINGS max_threads = 1 FORMAT LineAsString
INSERT INTO FUNCTION file('{new}') SELECT 1
INSERT INTO TABLE FUNCTION file('{new}', 'CSV', 'a UInt8') VALUES (1)
INSERT INTO FUNCTION url('{url}', 'CSV', 'a UInt8') VALUES (1)
INSERT INTO FUNCTION executable('{program}', TSV, 'a UInt8') VALUES (1)
SELECT file('{file}')
SELECT file('{file}', 'none')
SELECT `file`('{file}')
SELECT "file"('{file}')
SELECT `fil\x65`('{file}')
SELECT arrayMap(file, ['{file}'])
SELECT arrayMap(x -> file(x), ['{file}'])
SELECT COLUMNS('x') APPLY file FROM (SELECT '{file}' AS x)
SELECT * APPLY(file) FROM (SELECT '{file}' AS x)
SELECT throwIf(1, file('{file}'))
SELECT * FROM format(Values, 'a String', '(file(\'{file}\'))')
SELECT * FROM format(CSV, 'a String DEFAULT file(\'{file}\')', '')
SELECT 1 FROM t WHERE b = file('{file}') OR file('{file}') != ''
SELECT * FROM `{file}`
SELECT * FROM "{file}"
SELECT * FROM default.`{file}`
SELECT * FROM `file://{file}`
SELECT * FROM '{file}'
DESCRIBE `{file}`
SHOW CREATE TABLE `{file}`
INSERT INTO `{new}.csv` VALUES (1)
CREATE TABLE `{new}` (a UInt8) ENGINE = File(CSV)
CREATE TABLE f1 (a String) ENGINE = File(CSV, '{file}')
CREATE TABLE f2 ENGINE = URL('{url}', CSV)
CREATE TABLE f3 (a String) ENGINE = Executable('{program}', TSV)
CREATE TABLE f4 (a String) ENGINE = Executable('../../../../../../..{program}', TSV)
CREATE TEMPORARY TABLE f5 (a String) ENGINE = File(CSV, '{file}')
ATTACH TABLE f6 (a String) ENGINE = File(CSV, '{file}')
ATTACH TABLE f7 FROM '{folder}' (a String) ENGINE = MergeTree ORDER BY a
CREATE TABLE f8 (a String) ENGINE = Log SETTINGS disk = disk(type = local, path = '{folder}/')
CREATE TABLE f9 (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{folder}/')
CREATE TABLE g1 (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = web, endpoint = '{url}')
CREATE TABLE g2 (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = s3, endpoint = '{url}', access_key_id = 'x', secret_access_key = 'x')
ALTER TABLE t MODIFY SETTING disk = disk(type = local, path = '{folder}/')
CREATE TABLE g3 AS file('{file}', 'LineAsString')
CREATE TABLE g4 ENGINE = Memory AS SELECT * FROM file('{file}', 'LineAsString')
CREATE TABLE g5 (a Int8, b String DEFAULT file('{file}')) ENGINE = Memory
CREATE TABLE g6 (a Int8, b String MATERIALIZED file('{file}')) ENGINE = Memory
CREATE TABLE g7 (a Int8, CONSTRAINT c CHECK file('{file}') = 'x') ENGINE = Memory
CREATE VIEW v1 AS SELECT * FROM file('{file}', 'LineAsString')
CREATE VIEW v2 AS SELECT file('{file}') AS a
CREATE MATERIALIZED VIEW v3 ENGINE = Memory AS SELECT file('{file}') AS a, b FROM t
CREATE MATERIALIZED VIEW v4 REFRESH EVERY 1 SECOND (a String) ENGINE = Memory EMPTY AS SELECT file('{file}') AS a
CREATE MATERIALIZED VIEW v5 REFRESH EVERY 1 SECOND (a String) ENGINE = Memory AS SELECT * FROM url('{url}', 'LineAsString')
CREATE VIEW v6 SQL SECURITY NONE AS SELECT 1
CREATE FUNCTION u1 AS x -> file(x)
CREATE FUNCTION u2 LANGUAGE WASM FROM 'x' ARGUMENTS (a UInt8) RETURNS UInt8
CREATE DATABASE d1 ENGINE = Filesystem('{folder}')
CREATE DATABASE d2 ENGINE = Overlay('default')
CREATE DATABASE d3 ENGINE = SQLite('{file}')
CREATE DATABASE d4 ENGINE = MySQL('127.0.0.1:{port}', 'x', 'x', 'x')
CREATE DATABASE d5 ENGINE = S3('{url}')
CREATE DATABASE d6 ENGINE = Backup('default', File('{folder}'))
CREATE DATABASE d7 ENGINE = DataLakeCatalog('{url}') SETTINGS catalog_type = 'rest'
CREATE DATABASE d8 ENGINE = Remote('127.0.0.1:{port}', 'x')
CREATE DATABASE d9 ENGINE = Atomic SETTINGS disk = disk(type = local, path = '{folder}/')
CREATE DICTIONARY s1 (a UInt64, b String) PRIMARY KEY a SOURCE(FILE(PATH '{file}' FORMAT 'LineAsString')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY s2 (a UInt64, b String) PRIMARY KEY a SOURCE(EXECUTABLE(COMMAND '{program}' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY s3 (a UInt64, b String) PRIMARY KEY a SOURCE(HTTP(URL '{url}' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY s4 (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(HOST '127.0.0.1' PORT {port} TABLE 'x')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY s5 (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(QUERY 'SELECT 1, file(\'{file}\')')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY s6 (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(QUERY 'SELECT 1 a, line b FROM file(\'{file}\', LineAsString)')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY s7 (a UInt64, b String) PRIMARY KEY a SOURCE(MYSQL(HOST '127.0.0.1' PORT {port} TABLE 'x')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY s8 (a UInt64, b String) PRIMARY KEY a SOURCE(REDIS(HOST '127.0.0.1' PORT {port})) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY s9 (a UInt64, b String) PRIMARY KEY a SOURCE(EXECUTABLE_POOL(COMMAND '{program}' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
BACKUP TABLE t TO File('{new}')
BACKUP DATABASE default TO Disk('default', '{new}')
BACKUP ALL TO S3('{url}', 'x', 'x')
RESTORE TABLE t FROM File('{file}')
CREATE NAMED COLLECTION n AS url = '{url}'
CREATE USER u IDENTIFIED BY 'x'
GRANT ALL ON *.* TO default
GRANT READ ON FILE TO default
EXECUTE AS default SELECT file('{file}')
SYSTEM SHUTDOWN
SYSTEM KILL
SYSTEM RELOAD CONFIG
SYSTEM RELOAD USERS
SYSTEM START LISTEN HTTP
SYSTEM JEMALLOC FLUSH PROFILE
SYSTEM UNFREEZE WITH NAME 'x'
SYSTEM ENABLE FAILPOINT x
SET format_template_row = '{file}'
SET format_schema = '{schema}:M'
SET input_format_record_errors_file_path = '{new}'
SET additional_table_filters = <'t': 'throwIf(1, file(\'{file}\'))'}}
SET dialect = 'kusto'
SET allow_introspection_functions = 1
SELECT * FROM t SETTINGS additional_result_filter = 'file(\'{file}\') != \'\''
SELECT 1 FORMAT Template SETTINGS format_template_resultset = '{file}'
SELECT * FROM format(Protobuf, 'x') SETTINGS format_schema = '{schema}:M'
SELECT 1 AS a FORMAT Protobuf SETTINGS output_format_schema = '{new}.proto'
INSERT INTO t VALUES (2, file('{file}'))
INSERT INTO t SELECT 2, * FROM file('{file}', LineAsString)
INSERT INTO t VALUES (2, (SELECT * FROM file('{file}', LineAsString)))
ALTER TABLE t UPDATE b = file('{file}') WHERE 1
ALTER TABLE t ADD COLUMN c String DEFAULT file('{file}')
ALTER TABLE t FETCH PARTITION tuple() FROM '{folder}'
ALTER TABLE t FREEZE
DELETE FROM t WHERE b != file('{file}')
SELECT * FROM loop(file('{file}', LineAsString)) LIMIT 1
SELECT * FROM view(SELECT file('{file}'))
SELECT * FROM viewIfPermitted(SELECT file('{file}') AS a ELSE null('a String'))
SELECT * FROM viewExplain('EXPLAIN', '', (SELECT file('{file}')))
SELECT * FROM eval('SELECT file(\'{file}\')') SETTINGS allow_experimental_eval_table_function = 1
SELECT * FROM filesystem('{folder}')
SELECT * FROM python(x)
SELECT * FROM Python(x)
SELECT * FROM input('a String') FORMAT CSV
SELECT * FROM remote('127.0.0.1:{port}', system.one)
SELECT * FROM cluster('default', system.one)
SELECT 1 IN file('{file}', LineAsString)
DESCRIBE file('{file}', LineAsString)
DESCRIBE TABLE url('{url}')
EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:{port}', 'x', 'x', 'x', 'x') COLUMNS (a Int8)
EXPLAIN SELECT * FROM file('{file}', LineAsString)
EXPLAIN SYNTAX SELECT file('{file}')
CHECK TABLE `{file}`
SELECT 1; SELECT file('{file}')
SELECT 1 PARALLEL WITH SELECT file('{file}')
SELECT * FROM system.symbols LIMIT 1
SELECT addressToLine(1)
SELECT 1 PARALLEL WITH SELECT 2
SELECT 1 PARALLEL WITH CREATE DICTIONARY p1 (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(HOST '127.0.0.1' PORT {port} TABLE 'x')) LAYOUT(FLAT()) LIFETIME(0)
SELECT 1 parallel/**/with ATTACH TABLE p2 FROM '{folder}' (a String) ENGINE = MergeTree ORDER BY a
SELECT 1 PARALLEL WITH DROP DATABASE default
INSERT INTO t SELECT 1, 'x' PARALLEL WITH CREATE DICTIONARY p3 (a UInt64, b String) PRIMARY KEY a SOURCE(CASSANDRA(HOST '127.0.0.1' PORT {port} KEYSPACE 'x' COLUMN_FAMILY 'x')) LAYOUT(FLAT()) LIFETIME(0)
