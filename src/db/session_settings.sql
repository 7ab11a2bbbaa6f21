-- What each session starts with. `statement_timeout` does not hold for COPY, which the loader times itself.
SET lock_timeout = '10s';
SET statement_timeout = '60s';

-- For the server's side: without these the backend of a client that vanished (power cut, cut cable) keeps its locks, on
-- the loader's mark above all, for hours.
SET idle_in_transaction_session_timeout = '30s';
SET tcp_user_timeout = '30s';
SET tcp_keepalives_idle = 15;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;

SET client_min_messages = 'warning';

-- A backend in the middle of a long search does not look otherwise. A server on another system than Linux may not be
-- able to.
DO $$ BEGIN
    PERFORM set_config('client_connection_check_interval', '10s', false);
EXCEPTION WHEN invalid_parameter_value THEN NULL;
END $$;

-- Bounds of partitions are written as text.
SET TimeZone = 'UTC';

-- A commit that the server has not flushed would come back after its loss as hits that the mark has passed. A server
-- set to `off` is overruled, any stronger setting is left.
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
