-- The two roles of Plexus, for psql connected to its (empty) database as a superuser:
--
--     psql -v owner_password=… -v plain_password=… -f roles.sql
--
-- plexus_owner owns the tables and changes them (`migrate`). plexus is what serves: no owner and no
-- superuser, so that row-level security holds for it.
\set ON_ERROR_STOP on
\if :{?owner_password}
\else
  -- In the container the passwords are files.
  \set owner_password `cat /run/secrets/postgres_owner`
  \set plain_password `cat /run/secrets/postgres_plain`
\endif

CREATE ROLE plexus_owner LOGIN PASSWORD :'owner_password'
  NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
CREATE ROLE plexus LOGIN PASSWORD :'plain_password'
  NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;

SELECT current_database() AS database \gset
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT, CREATE ON DATABASE :"database" TO plexus_owner;
GRANT CONNECT ON DATABASE :"database" TO plexus;
GRANT USAGE, CREATE ON SCHEMA public TO plexus_owner;
GRANT USAGE ON SCHEMA public TO plexus;

-- Whatever the owner makes later, the other may use and not change.
ALTER DEFAULT PRIVILEGES FOR ROLE plexus_owner GRANT USAGE ON SCHEMAS TO plexus;
ALTER DEFAULT PRIVILEGES FOR ROLE plexus_owner
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO plexus;
ALTER DEFAULT PRIVILEGES FOR ROLE plexus_owner GRANT USAGE, SELECT ON SEQUENCES TO plexus;
