from campaign_fixtures import drive, executor, store

__all__ = ["drive", "executor", "store"]
