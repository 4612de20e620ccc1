{
  description = "Duoserve's toolchain: the same Python 3.11 and uv that pixi gives";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";

  outputs = { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
    in
    {
      # Wheels are built for ordinary Linux distributions, hence a shell that looks like one.
      devShells.${system}.default = (pkgs.buildFHSEnv {
        name = "duoserve";
        targetPkgs = p: [ p.python311 p.uv p.bash p.coreutils p.curl p.git p.numactl p.util-linux p.stdenv.cc.cc.lib p.zlib ];
        runScript = "bash";
      }).env;
    };
}
