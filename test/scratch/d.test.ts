import { suite } from './rig.ts';
const n = (k: number) => `JSON_TABLE(CONCAT('[', REPEAT('0,', ${k - 1}), '0]'), '$[*]' COLUMNS (i FOR ORDINALITY)) AS seq`;
suite([
  { name: 'double key', tables: ['ofl'], ddl: [ 'CREATE TABLE ofl (k double primary key, v text)', `INSERT INTO ofl VALUES (0.1,'1'),(1e300,'2'),(-2.5,'3'),(0,'z')`],
    ops: [ `UPDATE ofl SET v = 'u'`, `UPDATE ofl SET k = 0.30000000000000004 WHERE k = 0.1`, `DELETE FROM ofl WHERE k = 1e300`] },
  { name: 'double key negative zero', tables: ['ofz'], ddl: [ 'CREATE TABLE ofz (k double primary key, v text)', `INSERT INTO ofz VALUES (0.1,'1'),(0,'z')`],
    ops: [`UPDATE ofz SET k = -0e0 WHERE k = 0`, `UPDATE ofz SET v = 'after' WHERE k = 0`], },
  { name: 'big', tables: ['bg'], ddl: [`CREATE TABLE bg (id int primary key auto_increment, v varchar(100), u int unique)`, `INSERT INTO bg (v, u) VALUES ('a', 1)`],
    ops: [`INSERT INTO bg (v, u) SELECT REPEAT('x', 90), seq.i + 10 FROM ${n(30000)}`, 'UPDATE bg SET u = -u', 'UPDATE bg SET u = u * -1 + 1 ORDER BY u ASC', 'DELETE FROM bg WHERE id % 3 = 0', `BEGIN`, `UPDATE bg SET id = id + 1000000`, `UPDATE bg SET id = id - 999999 ORDER BY id`, `COMMIT`], seconds: 30 },
]);
