PRAGMA application_id = 1296257604; -- 0x4D435244
PRAGMA user_version = 1;

CREATE TABLE catalog_playlists(
  playlist_id INTEGER PRIMARY KEY,
  platform TEXT,
  remote_playlist_id TEXT,
  name TEXT,
  description TEXT,
  cover_url TEXT,
  play_count INTEGER NOT NULL DEFAULT 0,
  song_count INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE catalog_tracks(
  song_id INTEGER PRIMARY KEY,
  platform TEXT,
  remote_song_id TEXT,
  name TEXT,
  singers TEXT,
  ext TEXT,
  file_size_bytes INTEGER,
  metadata_json TEXT
);

CREATE TABLE catalog_playlist_tracks(
  playlist_id INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  song_id INTEGER NOT NULL,
  position INTEGER,
  PRIMARY KEY(playlist_id, ordinal)
) WITHOUT ROWID;

CREATE TABLE catalog_track_files(
  location_id INTEGER PRIMARY KEY,
  song_id INTEGER NOT NULL,
  quality_label TEXT,
  ext TEXT,
  file_size_bytes INTEGER,
  backend_type TEXT,
  backend_name TEXT,
  locator TEXT NOT NULL,
  public_url TEXT,
  status TEXT NOT NULL,
  is_primary INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE catalog_toplists(
  toplist_id TEXT NOT NULL,
  playlist_id INTEGER NOT NULL,
  platform TEXT NOT NULL,
  name TEXT,
  description TEXT,
  cover_url TEXT,
  play_count INTEGER NOT NULL DEFAULT 0,
  song_count INTEGER NOT NULL DEFAULT 0,
  group_name TEXT,
  PRIMARY KEY(platform, toplist_id, playlist_id)
) WITHOUT ROWID;

CREATE INDEX catalog_tracks_by_remote_id ON catalog_tracks(platform, remote_song_id);

CREATE INDEX catalog_track_files_by_song ON catalog_track_files(song_id);
