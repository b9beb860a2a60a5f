/** Counts what is done to rows of the destination, by a trigger that fires for replication as well: what is done twice shows. */
import type { TestDatabase } from '../support/postgres.ts';

export async function audit(destination: TestDatabase, table: string): Promise<void> {
  await destination.query(`
    CREATE TABLE audit (op text, before text, after text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF TG_OP <> 'UPDATE' OR old IS DISTINCT FROM new THEN
        INSERT INTO public.audit VALUES (TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN old::text END, CASE WHEN TG_OP <> 'DELETE' THEN new::text END);
      ELSE INSERT INTO public.audit VALUES ('AGAIN', old::text, new::text);
      END IF;
      RETURN NULL;
    END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON ${table} FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE ${table} ENABLE ALWAYS TRIGGER note;
  `);
}

/** Changes that were made more than once, or that changed nothing because they had been made before. */
export async function repeats(destination: TestDatabase): Promise<unknown[]> {
  return destination.query(
    `SELECT op, before, after, count(*)::int AS times FROM audit GROUP BY 1, 2, 3 HAVING count(*) > 1 OR op = 'AGAIN'`,
  );
}
