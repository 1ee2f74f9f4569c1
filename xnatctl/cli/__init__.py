"""asyncclick skins, one file a noun: options record in, run function out."""
