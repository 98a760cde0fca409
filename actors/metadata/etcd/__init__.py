"""The metadata store in etcd, over the JSON gateway that every member serves."""
